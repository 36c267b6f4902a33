"""A dataset that the tests write: a box on a floor, with descriptions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plyfile import PlyData, PlyElement

SCENES = {"train": ["scene0000_00", "scene0001_00"], "val": ["scene0002_00"]}
FLOOR, BOX = 16, 8
"""Vertices of each; the floor's come first."""
SEGMENTS = [7] * 8 + [3] * 8 + [20] * BOX
GROUPS = [
    {"id": 0, "objectId": 0, "segments": [3, 7], "label": "floor"},
    {"id": 4, "objectId": 4, "segments": [20], "label": "table"},
]
LABELS = [2] * FLOOR + [7] * BOX
DETAILREFER = [
    {"scene_id": scene, "ann_id": str(ann), "object_id": "4",
     "token": ["the", "box", "on", "the", "floor", "."], "t2o": {"1": [4], "4": [0]}}
    for scene in SCENES["train"] for ann in range(3)
]  # fmt: skip


def surface() -> tuple[np.ndarray, np.ndarray]:
    """A floor of 4 x 4 vertices and a closed box that stands on it: [24, 3], [30, 3]."""
    grid = np.stack(np.meshgrid(range(4), range(4), [0], indexing="ij"), axis=-1).reshape(-1, 3)
    corners = np.stack(np.meshgrid([1, 2], [1, 2], [0, 1], indexing="ij"), axis=-1).reshape(-1, 3)
    first = np.array([4 * x + y for x in range(3) for y in range(3)])
    floor = np.concatenate([first[:, None] + [0, 4, 1], first[:, None] + [1, 4, 5]])
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    box = [t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))]
    faces = np.concatenate([floor, FLOOR + np.array(box)])
    return np.concatenate([grid, corners]) * 0.5 + [10, 20, 0], faces


def write_ply(
    path: Path,
    vertices: np.ndarray,  # [N, 3]
    faces: list[Any] | np.ndarray = (),
    text: bool = False,
    **columns: np.ndarray,
) -> None:
    """A PLY file with further columns of its vertices."""
    named = {axis: vertices[:, i].astype("f4") for i, axis in enumerate("xyz")} | columns
    rows = np.empty(len(vertices), [(name, values.dtype) for name, values in named.items()])
    for name, values in named.items():
        rows[name] = values
    elements = [PlyElement.describe(rows, "vertex")]
    if len(faces):
        lists = np.empty(len(faces), [("vertex_indices", object)])
        for row, face in enumerate(faces):
            lists[row] = (np.array(face, dtype="i4"),)
        elements.append(PlyElement.describe(lists, "face"))
    PlyData(elements, text=text).write(str(path))


def colors(dtype: str = "u1", scale: float = 1.0) -> dict[str, np.ndarray]:
    """Columns of 24 colours: 0, 10, 20 ... in red."""
    rows = np.arange(FLOOR + BOX) * 10
    channels = {"red": rows, "green": rows // 2, "blue": rows * 0 + 200}
    return {name: (values * scale).astype(dtype) for name, values in channels.items()}


class SmallScan:
    """A scan's folder, and ways to spoil it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, ending: str) -> Path:
        return self.folder / f"{self.folder.name}{ending}"

    @property
    def mesh(self) -> Path:
        return self.path("_vh_clean_2.ply")

    @property
    def labels(self) -> Path:
        return self.path("_vh_clean_2.labels.ply")

    @property
    def segments(self) -> Path:
        return self.path("_vh_clean_2.0.010000.segs.json")

    @property
    def objects(self) -> Path:
        return self.path(".aggregation.json")

    def write(self) -> SmallScan:
        self.folder.mkdir(parents=True)
        vertices, faces = surface()
        write_ply(self.mesh, vertices, faces, **colors())
        write_ply(self.labels, vertices, label=np.array(LABELS, "u2"))
        self.segments.write_text(json.dumps({"segIndices": SEGMENTS}))
        self.objects.write_text(json.dumps({"segGroups": GROUPS}))
        return self

    def write_mesh(self, faces: Any = None, text: bool = False, **columns: np.ndarray) -> None:
        vertices, triangles = surface()
        write_ply(self.mesh, vertices, triangles if faces is None else faces, text, **columns)

    def move(self, row: int, place: float) -> None:
        """Writes the mesh with another x of one vertex."""
        vertices, faces = surface()
        vertices[row, 0] = place
        write_ply(self.mesh, vertices, faces, **colors())

    def scale(self, factor: float) -> None:
        vertices, faces = surface()
        write_ply(self.mesh, vertices * factor, faces, **colors())

    def write_labels(self, count: int = FLOOR + BOX, **columns: np.ndarray) -> None:
        write_ply(self.labels, surface()[0][:count], **columns)

    def write_segments(self, content: Any) -> None:
        self.segments.write_text(json.dumps({"segIndices": content}))

    def write_group(self, **fields: Any) -> None:
        """Writes the objects with other fields of the second."""
        self.objects.write_text(json.dumps({"segGroups": [GROUPS[0], {**GROUPS[1], **fields}]}))


def cut(path: Path, size: int) -> None:
    """Keeps a file's first bytes; all but the last ones where negative."""
    path.write_bytes(path.read_bytes()[:size])


def replace(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))


@pytest.fixture
def scan(tmp_path: Path) -> SmallScan:
    """A whole scan."""
    return SmallScan(tmp_path / "scene0000_00").write()


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., Path]:
    """Writes a dataset of three scans with their lists, in either layout."""

    def make(name: str = "data", nested: bool = False) -> Path:
        root = tmp_path / name
        base = root / "scannetv2" if nested else root
        for split, names in SCENES.items():
            for scene_id in names:
                SmallScan(base / "scans" / scene_id).write()
            (base / f"scannetv2_{split}.txt").write_text("\n".join(names) + "\n")
        return root

    return make


@pytest.fixture
def prepared(make_dataset: Callable[..., Path]) -> Path:
    """A dataset whose scans are prepared."""
    from detailbase.scans.prepare import find_scans, prepare_scan

    root = make_dataset("prepared")
    for one in find_scans(root):
        prepare_scan(one)
    return root


@pytest.fixture
def write_json(tmp_path: Path) -> Callable[[Any], Path]:
    def write(content: Any) -> Path:
        path = tmp_path / "descriptions.json"
        path.write_text(json.dumps(content))
        return path

    return write
