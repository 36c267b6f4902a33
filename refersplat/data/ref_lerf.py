"""Ref-LERF's sentences (``json/``) and masks (``gt_mask/``), in the layouts that circulate."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from refer3d.runs.errors import InputError
from refer3d.runs.files import atomic_write
from refer3d.runs.records import as_kind, read_json, take
from refersplat.data.annotations import Annotation, Dataset, MaskFile
from refersplat.data.images import fold, list_files
from refersplat.data.names import ViewNames, frame_number

_TRUE_MASKS = "gt_mask"
_OTHER_MASKS = "mask"
_AMODAL_MASKS = "gt_mask_amodal"


class JsonFile(NamedTuple):
    """The json file of a view."""

    path: Path
    is_test: bool
    """Whether it lies in ``test_json/``."""


def read(
    folder: Path,
    views: ViewNames,
    *,
    test: set[str],
    masks: str,
    warnings: list[str],
    without: Collection[str | None] = (),
) -> dict[str, list[Annotation]]:
    """Reads the annotations of every view but those of ``without``, as ``Dataset.read``."""
    finder = MaskFinder(folder, masks)
    annotations = {
        name: read_objects(file, name, finder, name in test or file.is_test, warnings)
        for name, file in find_json(folder, views, warnings).items()
        if name not in without
    }
    uses = Counter(str(a.mask) for of_view in annotations.values() for a in of_view if a.mask)
    warnings += [f"{mask}: is the mask of {num} views" for mask, num in uses.items() if num > 1]
    if finder.num_missing:
        warnings.append(
            f"{folder / masks}: no mask of {finder.num_missing} objects in training views, "
            "left out there"
        )
    return annotations


def write(
    folder: Path,
    views: ViewNames,
    category: str,
    sentences: Sequence[str],
    masks: Mapping[str, np.ndarray],
) -> None:
    """Writes an object: its sentences, and its mask in each view that shows it.

    What the files said of the category is replaced in all views, the rest stays. Every file is
    written whole, masks before the json files that name them, so that a scene can be read whenever
    the process ends.

    Args:
        folder: Folder of the scene.
        views: Its views.
        category: Name of the object, of letters, digits and underscores.
        sentences: Sentences about it.
        masks: Masks, [h, w] bool, by view name; without any, the object is removed.

    Raises:
        InputError: The category is no file name, there is no sentence, or a json is broken.
    """
    if not re.fullmatch(r"\w[\w-]*", category):
        raise InputError(
            f"category: expected letters, digits and underscores, got {category!r}; rename it"
        )
    if masks and not any(re.search(r"\w", text) for text in sentences):
        raise InputError(f"sentences: expected one about {category!r}, got none; write some")
    found = find_json(folder, views, [])
    files = {view: found[view].path for view in found}
    files = {view: folder / "json" / f"{view}.json" for view in masks} | files
    contents = {
        view: read_json(path, dict) if path.exists() else {"object": []}
        for view, path in files.items()
    }
    for view, content in contents.items():
        objects = take(content, "object", list, str(files[view]))
        content["object"] = [
            record
            for index, record in enumerate(objects)
            if as_kind(record, dict, f"{files[view]}: object[{index}]").get("category") != category
        ]
    for view, mask in masks.items():
        name = f"{category}_{view}.png"
        with atomic_write(folder / _TRUE_MASKS / name) as file:
            Image.fromarray(mask.astype(np.uint8) * 255).save(file, format="PNG")
        record = {"category": category, "segmentation": name, "sentence": list(sentences)}
        contents[view]["object"].append(record)
    for view, content in contents.items():
        with atomic_write(files[view]) as file:
            file.write(json.dumps(content, indent=1, ensure_ascii=False).encode())


def test_views(folder: Path, views: ViewNames) -> set[str]:
    """The views whose json lies in ``json/test_json/``."""
    return {name for name, file in find_json(folder, views, []).items() if file.is_test}


def find_json(folder: Path, views: ViewNames, warnings: list[str]) -> dict[str, JsonFile]:
    """The json file of each view.

    Raises:
        InputError: There are json files, but none is of a view, or two are of the same.
    """
    folder = folder / "json"
    files: dict[str, JsonFile] = {}
    others = []
    for file_name in list_files(folder):
        if not file_name.lower().endswith(".json"):
            continue
        path = folder / file_name
        part, *rest = file_name.split("/")
        is_split = part in ("train_json", "test_json") and bool(rest)
        file = JsonFile(path, is_test=is_split and part == "test_json")
        name = views.find("/".join(rest if is_split else (part, *rest)))
        if name is None:
            others.append(path)
        elif name not in files:
            files[name] = file
        elif file.is_test != files[name].is_test:
            files[name], other = sorted((file, files[name]), key=lambda f: not f.is_test)
            warnings.append(f"{other.path}: not read, {files[name].path} is of the same view")
        else:
            raise InputError(f"{files[name].path} and {path}: both of view {name!r}; delete one")
    if others and not files:
        raise InputError(
            f"{folder}: expected files named like the views ({views.names[0]} …), got "
            f"{len(others)} others ({others[0].name}); rename them to <image name>.json"
        )
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        warnings.append(f"{others[0]}{more}: no view of that name, not read")
    if not files:
        warnings.append(f"{folder}: no sentences, only colours can be trained")
    elif missing := [name for name in views.names if name not in files]:
        warnings.append(f"{len(missing)} of {len(views.names)} views without json: "
                        f"{', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}")  # fmt: skip
    return files


class MaskFinder:
    """Finds the mask files of a scene, in several folders and by several spellings."""

    def __init__(self, scene: Path, masks: str) -> None:
        self.scene = scene
        self.masks = masks
        self.num_missing = 0
        """Objects of training views without a mask in the folder of pseudo masks."""

    @cached_property
    def _listings(self) -> dict[str, dict[str, str]]:
        """The files of each folder, by their folded names."""
        folders = dict.fromkeys((self.masks, _TRUE_MASKS, _OTHER_MASKS, _AMODAL_MASKS))
        return {
            folder: {fold(name): name for name in list_files(self.scene / folder)}
            for folder in folders
        }

    def find(
        self, segmentation: str | None, category: str | None, view: str, is_test: bool, where: str
    ) -> tuple[str, str] | None:
        """Folder and file name of an object's mask in a view.

        Masks of training views are in the chosen folder, of test views in the true masks first,
        and otherwise in ``mask/``, under the name in the json or one of category and view. None if
        the chosen folder has pseudo masks, but none of the object: a detector may miss it.

        Raises:
            InputError: A true mask is missing, or several files match.
        """
        first = (_TRUE_MASKS, self.masks) if is_test else (self.masks,)
        folders = tuple(dict.fromkeys((*first, _OTHER_MASKS)))
        for folder in folders:
            files = self._listings[folder]
            for name in map(fold, _exact_names(segmentation, category, view)):
                if name in files:
                    return folder, files[name]
        for folder in folders:
            matches = _named_after(self._listings[folder].values(), category, view)
            if len(matches) == 1:
                return folder, matches[0]
            if matches:
                raise InputError(
                    f"{where}: several files of {self.scene / folder} match the mask of "
                    f"{category!r} in {view}: {', '.join(matches)}; name one in 'segmentation'"
                )
        if category and (name := self._listings[folders[0]].get(fold(f"{category}.png"))):
            return folders[0], name
        is_pseudo = self.masks not in (_TRUE_MASKS, _OTHER_MASKS)
        if is_pseudo and not is_test and self._listings[self.masks]:
            self.num_missing += 1
            return None
        raise InputError(
            f"{where}: expected the mask {segmentation or f'{category}_{view}.png'!r} in "
            f"{' or '.join(str(self.scene / folder) for folder in folders)}, no such file; copy it "
            "there, name its folder with --data.masks, or delete the object from the json"
        )

    def find_amodal(self, name: str) -> MaskFile | None:
        """The whole silhouette, in a file of the visible mask's name, if the scene has one."""
        file = self._listings[_AMODAL_MASKS].get(fold(name))
        return MaskFile(self.scene / _AMODAL_MASKS / file) if file else None


def _exact_names(segmentation: str | None, category: str | None, view: str) -> list[str]:
    names = []
    if segmentation:
        names += [segmentation, f"{view}/{segmentation}"]
    if category:
        file = f"{category}_{view}.png"
        names += [file, f"{view}/{file}", f"{view}/{category}.png"]
    return names


def _named_after(files: Iterable[str], category: str | None, view: str) -> list[str]:
    """Files ``<category>_….png`` that hold the view's name, or end in its frame number."""
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
    file: JsonFile, view: str, masks: MaskFinder, is_test: bool, warnings: list[str]
) -> list[Annotation]:
    """The objects with sentences of a view's json; ``"segmentation": null`` means nothing there.

    Objects without a sentence are left out, entries with the same mask are joined, with warnings.

    Raises:
        InputError: The file is not as the format says, a mask is missing, or a sentence means both
            an object and nothing.
    """
    annotations: dict[MaskFile, Annotation] = {}
    nothing: list[Annotation] = []
    objects = take(read_json(file.path, dict), "object", list, str(file.path))
    for index, record in enumerate(objects):
        where = f"{file.path}: object[{index}]"
        as_kind(record, dict, where)
        category = _optional_text(record, "category", where)
        segmentation = _optional_text(record, "segmentation", where)
        if category is None and segmentation is None and "segmentation" not in record:
            take(record, "segmentation", str, where)
        sentences = _sentences(record, where)
        if record.get("segmentation", ...) is None:
            nothing += [Annotation(category, sentences, None, where)] if sentences else []
            continue
        place = masks.find(segmentation, category, view, is_test, where)
        if place is None:
            continue
        mask = MaskFile(masks.scene.joinpath(*place))
        if not sentences:
            warnings.append(f"{where}: {category or segmentation} has no sentence, left out")
            continue
        if mask in annotations:
            warnings.append(f"{where}: {mask.path.name} is listed twice, its sentences are joined")
            sentences = tuple(dict.fromkeys(annotations[mask].sentences + sentences))
            category = annotations[mask].category
        amodal = masks.find_amodal(place[1])
        annotations[mask] = Annotation(category, sentences, mask, where, amodal)
    for item, other in itertools.product(nothing, annotations.values()):
        for sentence in set(item.sentences) & set(other.sentences):
            raise InputError(
                f"{item.where}: segmentation: expected no object that {sentence!r} means, got that "
                f"of {other.where}; delete one of the two sentences"
            )
    return [*annotations.values(), *nothing]


def _optional_text(record: Mapping[str, Any], key: str, where: str) -> str | None:
    return None if record.get(key) is None else take(record, key, str, where) or None


def _sentences(record: Mapping[str, Any], where: str) -> tuple[str, ...]:
    value = record.get("sentence", ...)
    if value is None or isinstance(value, str):
        value = [value or ""]
    else:
        value = take(record, "sentence", list, where)
    texts = [as_kind(v, str, f"{where}: sentence[{i}]").strip() for i, v in enumerate(value)]
    return tuple(dict.fromkeys(text for text in texts if re.search(r"\w", text)))


REF_LERF = Dataset(
    "Ref-LERF",
    detects=lambda folder: (folder / "json").is_dir(),
    read=read,
    test_views=test_views,
    test_frames={
        "ramen": (6, 24, 60, 65, 81, 119, 128),
        "teatime": (2, 25, 43, 107, 129, 140),
        "figurines": (83, 97, 146, 179),
        "waldo_kitchen": (19, 35, 67, 105, 162),
    },
)
