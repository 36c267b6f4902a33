"""Names of views, and which of them are kept for testing."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from refer3d.runs.errors import InputError
from refersplat.data.images import SUFFIXES

EVERY = 8
"""Without any list, every 8th view tests, as in Mip-NeRF 360."""

REF_LERF_TEST = {
    "ramen": (6, 24, 60, 65, 81, 119, 128),
    "teatime": (2, 25, 43, 107, 129, 140),
    "figurines": (83, 97, 146, 179),
    "waldo_kitchen": (19, 35, 67, 105, 162),
}
"""Frame numbers of Ref-LERF's test views, by scene."""


def frame_number(name: str) -> int | None:
    """The number that a name ends in: 8 for ``frame_00008``."""
    digits = re.search(r"(\d+)$", name)
    return int(digits[1]) if digits else None


def without_suffix(name: str) -> str:
    """``images/a.b`` of ``images/a.b.png``: only an image's or json's suffix is taken off."""
    path = PurePosixPath(name.replace("\\", "/"))
    is_suffix = path.suffix.lower() in (*SUFFIXES, ".json")
    return (path.with_suffix("") if is_suffix else path).as_posix()


def view_names(files: Sequence[str]) -> list[str]:
    """A short name per image file: its stem, or its path where stems are not unique.

    Raises:
        InputError: If two images cannot be told apart.
    """
    paths = [without_suffix(file) for file in files]
    stems = [PurePosixPath(path).name for path in paths]
    names = stems
    if len(set(stems)) < len(stems):
        names = ["_".join(part for part in PurePosixPath(path).parts if part != "..")
                 for path in paths]  # fmt: skip
    seen: dict[str, str] = {}
    for name, file in zip(names, files, strict=True):
        if name in seen:
            raise InputError(
                f"{seen[name]} and {file}: two images are named {name!r}, expected one; rename or "
                "leave out one of them"
            )
        seen[name] = file
    return names


class ViewNames:
    """Finds views by the several ways in which files and people write their names."""

    def __init__(self, names: Sequence[str], files: Sequence[str]) -> None:
        self.names = list(names)
        self._exact: dict[str, str] = {}
        self._numbers: dict[int, list[str]] = {}
        for name, file in zip(names, files, strict=True):
            self._exact[without_suffix(file)] = name
            self._numbers.setdefault(_number_or(name, -1), []).append(name)
        self._exact.update({name: name for name in names})

    def find(self, text: str) -> str | None:
        """The view of that name; digits alone also find a view by its frame number.

        An image ``08`` is found by ``frame_00008`` too, as some copies of Ref-LERF need.
        """
        text = without_suffix(str(text))
        stem = PurePosixPath(text).name
        for candidate in (text, stem):
            if candidate in self._exact:
                return self._exact[candidate]
        number = frame_number(stem)
        matches = self._numbers.get(number, []) if number is not None else []
        if not stem.isdigit():
            matches = [name for name in matches if name.isdigit()]
        return matches[0] if len(matches) == 1 else None

    def require(self, texts: Iterable[str | int], where: str) -> set[str]:
        """The views of those names.

        Raises:
            InputError: If one does not exist; the nearest name is proposed.
        """
        found = {}
        for text in map(str, texts):
            name = self.find(text)
            if name is None:
                near = difflib.get_close_matches(text, self.names, n=1, cutoff=0.3)
                hint = f"did you mean {near[0]!r}?" if near else "give names or frame numbers"
                raise InputError(
                    f"{where}: no view {text!r} among {len(self.names)} ({self.names[0]} … "
                    f"{self.names[-1]}); {hint}"
                )
            found[name] = text
        return set(found)


def _number_or(name: str, default: int) -> int:
    number = frame_number(name)
    return default if number is None else number


def choose_test_views(
    names: ViewNames,
    *,
    scene_name: str,
    asked: Sequence[str],
    by_folder: set[str],
    listed: Sequence[str | int],
    where: str,
) -> tuple[set[str], str]:
    """Which views test, and in words who says so.

    The first that is there decides: the option, the folder ``test_json`` or a file of test poses,
    the scene's ``meta.json``, Ref-LERF's list for a scene of that name, every 8th view.

    Raises:
        InputError: If a list names a view that does not exist, or no view is left for training.
    """
    known = REF_LERF_TEST.get(scene_name.lower(), ())
    if asked:
        test, reason = names.require(asked, "--data.test_views"), "--data.test_views"
    elif by_folder:
        test, reason = by_folder, "the scene's own test files"
    elif listed:
        test, reason = names.require(listed, f"{where}/meta.json: test_views"), "meta.json"
    elif known and all(names.find(str(number)) for number in known):
        test, reason = names.require(known, scene_name), f"Ref-LERF's list for {scene_name}"
    else:
        test, reason = set(sorted(names.names)[::EVERY]), f"every {EVERY}th view"
    if len(test) == len(names.names):
        raise InputError(
            f"{where}: all {len(test)} views are test views (by {reason}), none is left for "
            "training; name fewer with --data.test_views"
        )
    return test, reason
