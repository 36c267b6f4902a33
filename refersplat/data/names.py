"""Names of views, and names of files."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from refer3d.runs.errors import InputError
from refersplat.data.images import SUFFIXES, fold

LONGEST_SLUG = 40


def frame_number(name: str) -> int | None:
    """The number at the end of a name: 8 of ``frame_00008``."""
    digits = re.search(r"(\d+)$", name)
    return int(digits[1]) if digits else None


def without_suffix(name: str) -> str:
    """Removes the suffix of an image or json: ``images/a.b`` of ``images/a.b.png``."""
    path = PurePosixPath(name.replace("\\", "/"))
    is_suffix = path.suffix.lower() in (*SUFFIXES, ".json")
    return (path.with_suffix("") if is_suffix else path).as_posix()


def view_names(files: Sequence[str]) -> list[str]:
    """A short name per image file: its stem, or its path where stems are not unique.

    Raises:
        InputError: Two images have the same name.
    """
    paths = [without_suffix(file) for file in files]
    stems = [PurePosixPath(path).name for path in paths]
    names = stems
    if len(set(stems)) < len(stems):
        names = [path.replace("../", "").replace("/", "_") for path in paths]
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
    """Finds views by the spellings of their names in files and options."""

    def __init__(self, names: Sequence[str], files: Sequence[str]) -> None:
        self.names = list(names)
        self._exact: dict[str, str] = {}
        self._numbers: dict[int | None, list[str]] = {}
        for name, file in zip(names, files, strict=True):
            self._exact[without_suffix(file)] = name
            self._numbers.setdefault(frame_number(name), []).append(name)
        self._exact.update({name: name for name in names})
        for spelling, name in list(self._exact.items()):
            self._exact.setdefault(fold(spelling), name)

    def find(self, text: str) -> str | None:
        """The view of a name, or None; digits alone also match a frame number.

        ``frame_00008`` also matches an image ``08``, as some copies of Ref-LERF need.
        """
        text = without_suffix(str(text))
        stem = PurePosixPath(text).name
        for candidate in (text, stem, fold(text), fold(stem)):
            if candidate in self._exact:
                return self._exact[candidate]
        number = frame_number(stem)
        matches = self._numbers.get(number, []) if number is not None else []
        if not stem.isdigit():
            matches = [name for name in matches if name.isdigit()]
        return matches[0] if len(matches) == 1 else None

    def require(self, texts: Iterable[str | int], where: str) -> set[str]:
        """The views of the names.

        Raises:
            InputError: A view does not exist; the message proposes the nearest name.
        """
        views = set()
        for text in map(str, texts):
            name = self.find(text)
            if name is None:
                near = difflib.get_close_matches(text, self.names, n=1, cutoff=0.3)
                hint = f"did you mean {near[0]!r}?" if near else "give names or frame numbers"
                raise InputError(
                    f"{where}: no view {text!r} among {len(self.names)} ({self.names[0]} … "
                    f"{self.names[-1]}); {hint}"
                )
            views.add(name)
        return views


def slug(text: str) -> str:
    """Converts text to a part of a file name: its words, in any script, joined by hyphens."""
    words = re.sub(r"[\W_]+", "-", text.lower()).strip("-")
    return words[:LONGEST_SLUG].rstrip("-") or "sentence"


def digest(text: str) -> str:
    """Hashes text, to separate sentences whose slugs are the same."""
    return hashlib.sha256(text.encode()).hexdigest()[:6]
