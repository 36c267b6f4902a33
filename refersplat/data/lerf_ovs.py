"""LERF-OVS (Qin et al. 2024): polygons of categories, whose names are short sentences.

``label/<scene>/frame_*.json`` beside the scene marks its test views alone. Other views train with
Ref-LERF's ``json/`` and masks, where the scene has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from refer3d.runs.errors import InputError
from refer3d.runs.records import as_kind, first_few, read_json, short, take
from refersplat.data import ref_lerf
from refersplat.data.annotations import Annotation, Dataset, Polygons
from refersplat.data.names import ViewNames


def label_folder(scene: Path) -> Path:
    """The folder of the scene's labels."""
    scene = scene.absolute()
    return scene.parent / "label" / scene.name


def read(
    folder: Path, views: ViewNames, *, test: set[str], masks: str, warnings: list[str]
) -> Mapping[str, Sequence[Annotation]]:
    """Reads the labels, and Ref-LERF's sentences of other views, as ``Dataset.read``.

    Ref-LERF's test views are left out, and labels of views that are not tested: their masks are
    true ones, which no method trains on.

    Raises:
        InputError: There are no labels, or a file is not as its format says.
    """
    files, others = find_labels(folder, views)
    labels = {name: read_label(path) for name, path in files.items()}
    if others:
        shown = first_few([path.name for path in others])
        warnings.append(f"{label_folder(folder)}: {shown} ({len(others)}): no view of that name")
    if not labels:
        raise InputError(
            f"{label_folder(folder)}: expected frame_*.json of the scene's photos, got none; copy "
            "LERF-OVS's folder label/ beside the scene, or omit --data.dataset lerf_ovs"
        )
    tested = {name: objects for name, objects in labels.items() if name in test}
    if not (folder / "json").is_dir():
        warnings.append(
            f"{folder / 'json'}: no such folder, so only colours can be trained: the labels are "
            "for test views; copy Ref-LERF's json/ and gt_mask/ there"
        )
        return tested
    frames = ref_lerf.REF_LERF.test_frames.get(folder.absolute().name.lower(), ())
    others = ref_lerf.test_views(folder, views) | {views.find(str(frame)) for frame in frames}
    training = ref_lerf.read(
        folder, views, test=test, masks=masks, warnings=warnings, without={*labels, *others}
    )
    return {**training, **tested}


def find_labels(folder: Path, views: ViewNames) -> tuple[dict[str, Path], list[Path]]:
    """The label file of each view, and the files without a view."""
    found = [(views.find(p.name), p) for p in sorted(label_folder(folder).glob("frame_*.json"))]
    labels = {name: path for name, path in found if name is not None}
    return labels, [path for name, path in found if name is None]


def read_label(path: Path) -> list[Annotation]:
    """The objects of a label file; polygons of one category are one object.

    Raises:
        InputError: The file is not as the format says.
    """
    content = read_json(path, dict)
    info = take(content, "info", dict, str(path))
    width, height = (take(info, side, int, f"{path}: info") for side in ("width", "height"))
    outlines: dict[str, list[tuple[tuple[float, float], ...]]] = {}
    for index, record in enumerate(take(content, "objects", list, str(path))):
        where = f"{path}: objects[{index}]"
        as_kind(record, dict, where)
        category = take(record, "category", str, where).strip()
        corners = take(record, "segmentation", list, where)
        if not category or len(corners) < 3:
            raise InputError(
                f"{where}: expected a category with an outline of at least 3 corners, got "
                f"{category!r} with {len(corners)}; correct the file"
            )
        places = (f"{where}: segmentation[{number}]" for number in range(len(corners)))
        outline = tuple(_corner(*pair) for pair in zip(corners, places, strict=True))
        outlines.setdefault(category, []).append(outline)
    return [
        Annotation(name, (name,), Polygons(tuple(parts), width, height), f"{path}: {name}")
        for name, parts in outlines.items()
    ]


def _corner(value: Any, where: str) -> tuple[float, float]:
    if len(as_kind(value, list, where)) != 2:
        raise InputError(f"{where}: expected [x, y], got {short(value)}; correct the file")
    x, y = (as_kind(number, float, f"{where}[{i}]") for i, number in enumerate(value))
    return x, y


LERF_OVS = Dataset(
    "LERF-OVS",
    detects=lambda folder: label_folder(folder).is_dir(),
    read=read,
    test_views=lambda folder, views: {*find_labels(folder, views)[0]},
    test_frames={
        "ramen": (6, 24, 60, 65, 81, 119, 128),
        "teatime": (2, 25, 43, 107, 129, 140),
        "figurines": (41, 105, 152, 195),
        "waldo_kitchen": (53, 66, 89, 140, 154),
    },
    is_open_vocabulary=True,
)
