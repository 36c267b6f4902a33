"""Ref-LERF's sentences and masks: who is named in which view, and the file that shows where."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from refer3d.runs.errors import InputError
from refer3d.runs.records import as_kind, read_json, take
from refersplat.data.splits import ViewNames, frame_number

_TRUE_MASKS = "gt_mask"
_OTHER_MASKS = "mask"
_AMODAL_MASKS = "gt_mask_amodal"


@dataclass(frozen=True)
class Entry:
    """One object of one view."""

    category: str | None
    sentences: tuple[str, ...]
    mask_path: Path
    amodal_path: Path | None
    where: str
    """The json file and field that names it."""


@dataclass(frozen=True)
class JsonFile:
    """The json file that describes a view."""

    path: Path
    is_test: bool
    """It lies in ``test_json/``."""


def find_json(scene: Path, names: ViewNames, warnings: list[str]) -> dict[str, JsonFile]:
    """The json file of each view that has one.

    Raises:
        InputError: If there are json files, but none is of a view, or two are of the same.
    """
    folder = scene / "json"
    files: dict[str, JsonFile] = {}
    strangers = []
    for path in sorted(folder.rglob("*.json")):
        parts = path.relative_to(folder).parts
        is_split = len(parts) > 1 and parts[0] in ("train_json", "test_json")
        file = JsonFile(path, is_test=is_split and parts[0] == "test_json")
        name = names.find("/".join(parts[1:] if is_split else parts))
        if name is None:
            strangers.append(path)
        elif name not in files:
            files[name] = file
        elif file.is_test != files[name].is_test:
            kept, left = sorted((file, files[name]), key=lambda f: not f.is_test)
            files[name] = kept
            warnings.append(f"{left.path}: not read, since {kept.path} describes the same view")
        else:
            raise InputError(
                f"{files[name].path} and {path}: both describe view {name!r}; delete one"
            )
    if strangers and not files:
        raise InputError(
            f"{folder}: none of {len(strangers)} files is named like a view "
            f"({strangers[0].name}, but the views are {names.names[0]} …); rename them to "
            "<image name>.json"
        )
    if strangers:
        warnings.append(f"{_some(strangers)}: no view of that name, not read")
    if not files:
        warnings.append(f"{folder}: no sentences, only colours can be trained")
    elif missing := [name for name in names.names if name not in files]:
        warnings.append(f"{len(missing)} of {len(names.names)} views without json: "
                        f"{', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}")  # fmt: skip
    return files


def _some(paths: list[Path]) -> str:
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return f"{paths[0]}{more}"


class MaskFolders:
    """Where a scene keeps its masks, and how their files may be named."""

    def __init__(self, scene: Path, masks: str) -> None:
        self.scene = scene
        self.masks = masks
        self.num_missing = 0
        """Objects of training views for which a folder of pseudo masks has nothing."""

    @cached_property
    def _listings(self) -> dict[str, frozenset[str]]:
        folders = dict.fromkeys((self.masks, _TRUE_MASKS, _OTHER_MASKS, _AMODAL_MASKS))
        return {
            folder: frozenset(
                path.relative_to(self.scene / folder).as_posix()
                for path in (self.scene / folder).rglob("*")
                if path.is_file()
            )
            for folder in folders
        }

    def find(
        self,
        segmentation: str | None,
        category: str | None,
        view: str,
        *,
        is_test: bool,
        where: str,
    ) -> Path | None:
        """The file of an object's mask in a view.

        Training views look into the chosen folder, test views into the true masks first; both
        into ``mask/`` second. There the file may have the name that the json gives, or one made of
        the category and the view. None if a folder of pseudo masks was chosen that has no mask of
        the object in this view: a detector may miss it.

        Raises:
            InputError: If a mask is missing elsewhere, or there is no telling which it is.
        """
        first = (_TRUE_MASKS, self.masks) if is_test else (self.masks,)
        folders = tuple(dict.fromkeys((*first, _OTHER_MASKS)))
        for folder in folders:
            files = self._listings[folder]
            for name in _exact_names(segmentation, category, view):
                if name in files:
                    return self.scene / folder / name
        for folder in folders:
            matches = _named_after(self._listings[folder], category, view)
            if len(matches) == 1:
                return self.scene / folder / matches[0]
            if matches:
                raise InputError(
                    f"{where}: several files of {self.scene / folder} could be the mask of "
                    f"{category!r} in {view}: {', '.join(matches)}; name one in 'segmentation'"
                )
        if category and f"{category}.png" in self._listings[folders[0]]:
            return self.scene / folders[0] / f"{category}.png"
        is_pseudo = self.masks not in (_TRUE_MASKS, _OTHER_MASKS)
        if is_pseudo and not is_test and self._listings[self.masks]:
            self.num_missing += 1
            return None
        wanted = segmentation or f"{category}_{view}.png"
        looked = " and ".join(str(self.scene / folder) for folder in folders)
        raise InputError(
            f"{where}: names the mask {wanted!r}, which is not in {looked}; copy the mask there, "
            "name its folder with --data.masks, or take the object out of the json"
        )

    def find_amodal(self, mask_path: Path) -> Path | None:
        """The silhouette of the whole object, hidden parts included, where the scene has one."""
        for folder in self._listings:
            base = self.scene / folder
            if mask_path.is_relative_to(base):
                name = mask_path.relative_to(base).as_posix()
                if name in self._listings[_AMODAL_MASKS]:
                    return self.scene / _AMODAL_MASKS / name
        return None


def _exact_names(segmentation: str | None, category: str | None, view: str) -> list[str]:
    names = []
    if segmentation:
        names += [segmentation, f"{view}/{segmentation}"]
    if category:
        names += [f"{place}{category}_{view}.png" for place in ("", f"{view}/")]
        names += [f"{view}/{category}.png"]
    return names


def _named_after(files: frozenset[str], category: str | None, view: str) -> list[str]:
    """Files ``<category>_….png`` that name this view, or end in its frame number."""
    if not category:
        return []
    number = frame_number(view)
    matches = []
    for file in sorted(files):
        rest = re.fullmatch(re.escape(category) + r"_(.*)\.png", file)
        if rest is None:
            continue
        is_named = re.search(rf"(?<![^\W_]){re.escape(view)}(?![^\W_])", rest[1])
        digits = re.fullmatch(r"(?:frame_?)?(\d+)", rest[1])
        if is_named or (digits and int(digits[1]) == number):
            matches.append(file)
    return matches


def read_objects(
    file: JsonFile, view: str, masks: MaskFolders, *, is_test: bool, warnings: list[str]
) -> list[Entry]:
    """The objects that a view's json names and says something about.

    Objects without a sentence are left out, entries with the same mask are joined; both are
    written into ``warnings``.

    Raises:
        InputError: If the file is not as the format says, or a mask is missing.
    """
    entries: dict[Path, Entry] = {}
    content = read_json(file.path, dict)
    for index, record in enumerate(take(content, "object", list, str(file.path))):
        where = f"{file.path}: object[{index}]"
        as_kind(record, dict, where)
        category = _optional_text(record, "category", where)
        segmentation = _optional_text(record, "segmentation", where)
        if category is None and segmentation is None:
            take(record, "segmentation", str, where)
        sentences = _sentences(record, where)
        path = masks.find(segmentation, category, view, is_test=is_test, where=where)
        if path is None:
            continue
        if not sentences:
            warnings.append(f"{where}: {category or segmentation} has no sentence, left out")
            continue
        if path in entries:
            warnings.append(f"{where}: {path.name} is listed twice, its sentences are joined")
            sentences = tuple(dict.fromkeys(entries[path].sentences + sentences))
            category = entries[path].category
        entries[path] = Entry(category, sentences, path, masks.find_amodal(path), where)
    return list(entries.values())


def _optional_text(record: Mapping[str, Any], key: str, where: str) -> str | None:
    if record.get(key) is None:
        return None
    return take(record, key, str, where) or None


def _sentences(record: Mapping[str, Any], where: str) -> tuple[str, ...]:
    value = record.get("sentence")
    if isinstance(value, str):
        value = [value]
    elif value is None and "sentence" in record:
        value = []
    else:
        value = take(record, "sentence", list, where)
    texts = [as_kind(v, str, f"{where}: sentence[{i}]").strip() for i, v in enumerate(value)]
    has_word = re.compile(r"\w").search
    return tuple(dict.fromkeys(text for text in texts if has_word(text)))
