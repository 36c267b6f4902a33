"""Scans in ScanNet's layout.

``<scan>/<scan>_vh_clean_2.ply`` is the mesh, ``_vh_clean_2.labels.ply`` the same vertices with
NYU40 labels, ``_vh_clean_2.0.010000.segs.json`` the segment of each vertex, and
``.aggregation.json`` the segments of each object.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from plyfile import PlyData, PlyElement, PlyParseError

from detailbase.data.clouds import NONE, Cloud
from detailbase.ops import mesh_superpoints
from runs.errors import InputError

CLASSES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36, 39)
"""NYU40 ids of ScanNet's 20 classes."""


class Mesh(NamedTuple):
    """A scanned surface."""

    vertices: np.ndarray
    """[N, 3] float32."""
    colors: np.ndarray
    """[N, 3] uint8."""
    faces: np.ndarray
    """[F, 3] int64; F may be 0."""


def read_scan(folder: Path, has_labels: bool = True) -> Cloud:
    """A scan with its objects.

    Segments are computed where ``segs.json`` is absent; objects then cannot be known.

    Args:
        folder: Of the scan; its name is the scan's.
        has_labels: Whether there must be labels and objects.

    Raises:
        InputError: A file is absent or broken, or does not belong to the mesh.
    """
    stem = str(folder / folder.name)
    mesh = read_mesh(Path(f"{stem}_vh_clean_2.ply"))
    count = len(mesh.vertices)
    segments_path = Path(f"{stem}_vh_clean_2.0.010000.segs.json")
    semantic = instances = np.full(count, NONE, dtype=np.int64)
    if has_labels:
        semantic = read_semantic(Path(f"{stem}_vh_clean_2.labels.ply"), count)
    if segments_path.is_file():
        segments = read_segments(segments_path, count)
        if has_labels:
            instances = read_instances(Path(f"{stem}.aggregation.json"), segments)
        superpoints = torch.from_numpy(np.unique(segments, return_inverse=True)[1])
    elif has_labels:
        raise InputError(f"{segments_path}: no such file, but objects are made of its segments")
    else:
        if not len(mesh.faces):
            raise InputError(f"{stem}_vh_clean_2.ply: has no faces to make superpoints from")
        superpoints = mesh_superpoints(
            torch.from_numpy(mesh.vertices), torch.from_numpy(mesh.faces)
        )
    xyz = torch.from_numpy(mesh.vertices)
    return Cloud(
        xyz=(xyz.double() - xyz.double().mean(dim=0)).float(),
        rgb=torch.from_numpy(mesh.colors).float() / 127.5 - 1,
        superpoints=superpoints,
        semantic=torch.from_numpy(semantic),
        instances=torch.from_numpy(instances),
    )


def read_mesh(path: Path) -> Mesh:
    """Vertices, colours and triangles of a PLY file; without colours, all are grey.

    Raises:
        InputError: The file is absent or broken.
    """
    ply = _read_ply(path)
    vertex = _element(ply, path, "vertex")
    try:
        vertices = np.stack([vertex[axis] for axis in "xyz"], axis=1).astype(np.float32)
    except ValueError as error:
        raise InputError(f"{path}: its vertices have no x, y, z") from error
    if not len(vertices):
        raise InputError(f"{path}: has no vertices")
    if not np.isfinite(vertices).all():
        row = int(np.flatnonzero(~np.isfinite(vertices).all(axis=1))[0])
        raise InputError(f"{path}: vertex {row} is not finite: {vertices[row].tolist()}")
    names = vertex.data.dtype.names
    if {"red", "green", "blue"} <= set(names):
        colors = np.stack([vertex[name] for name in ("red", "green", "blue")], axis=1)
        if colors.dtype != np.uint8:  # some tools write shares of one
            colors = (colors * (255 if colors.max() <= 1 else 1)).clip(0, 255).astype(np.uint8)
    else:
        colors = np.full((len(vertices), 3), 127, dtype=np.uint8)
    return Mesh(vertices, colors, _faces(ply, path, len(vertices)))


def _faces(ply: PlyData, path: Path, count: int) -> np.ndarray:
    """[F, 3] triangles; polygons are cut into fans."""
    if "face" not in ply or not len(ply["face"].data):
        return np.zeros((0, 3), dtype=np.int64)
    lists = [p.name for p in ply["face"].properties if p.name in ("vertex_indices", "vertex_index")]
    if not lists:
        raise InputError(f"{path}: its faces have no vertex_indices")
    corners = ply["face"][lists[0]]
    sizes = np.fromiter(map(len, corners), dtype=np.int64, count=len(corners))
    if (sizes == 3).all():
        faces = np.stack(corners).astype(np.int64)
    else:
        fans = [(c[0], c[i], c[i + 1]) for c in corners for i in range(1, len(c) - 1)]
        faces = np.array(fans, dtype=np.int64).reshape(-1, 3)
    if len(faces) and not 0 <= faces.min() <= faces.max() < count:
        raise InputError(
            f"{path}: a face names vertex {faces.max() if faces.min() >= 0 else faces.min()}, "
            f"but there are {count}"
        )
    return faces


def read_semantic(path: Path, count: int) -> np.ndarray:
    """[N] ScanNet's class of each vertex, 0 to 19, or ``NONE``."""
    vertex = _element(_read_ply(path), path, "vertex")
    if "label" not in vertex.data.dtype.names:
        raise InputError(f"{path}: its vertices have no label")
    labels = np.asarray(vertex["label"]).astype(np.int64)
    if len(labels) != count:
        raise InputError(f"{path}: has {len(labels)} labels, but the mesh has {count} vertices")
    table = np.full(max(int(labels.max(initial=0)), *CLASSES) + 1, NONE, dtype=np.int64)
    table[list(CLASSES)] = np.arange(len(CLASSES))
    return table[labels]


def read_segments(path: Path, count: int) -> np.ndarray:
    """[N] the segment of each vertex, in any numbering."""
    segments = _read_json(path).get("segIndices")
    if not isinstance(segments, list) or not all(type(index) is int for index in segments):
        raise InputError(f"{path}: segIndices must be a list of whole numbers")
    if len(segments) != count:
        raise InputError(
            f"{path}: segIndices has {len(segments)} entries, but the mesh has {count} vertices; "
            "it belongs to another scan or another version of it"
        )
    return np.array(segments, dtype=np.int64)


def read_instances(path: Path, segments: np.ndarray) -> np.ndarray:
    """[N] the object of each vertex: ``id`` of the group that its segment is in, or ``NONE``."""
    groups = _read_json(path).get("segGroups")
    if not isinstance(groups, list):
        raise InputError(f"{path}: segGroups must be a list")
    instances = np.full(len(segments), NONE, dtype=np.int64)
    known = set(np.unique(segments).tolist())
    for index, group in enumerate(groups):
        where = f"{path}: segGroups[{index}]"
        if not isinstance(group, dict):
            raise InputError(f"{where} must be an object with id and segments")
        identity = group.get("id", group.get("objectId"))
        if type(identity) is not int or identity < 0:
            raise InputError(f"{where}: id must be a whole number from 0, got {identity!r}")
        members = group.get("segments")
        if not isinstance(members, list) or not all(type(member) is int for member in members):
            raise InputError(f"{where}: segments must be a list of whole numbers")
        if absent := [member for member in members if member not in known]:
            raise InputError(
                f"{where}: segment {absent[0]} is not in the scan's segs.json; the two files do "
                "not belong together"
            )
        instances[np.isin(segments, members)] = identity
    return instances


def _read_ply(path: Path) -> PlyData:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        return PlyData.read(str(path))
    except (PlyParseError, ValueError, UnicodeDecodeError, EOFError, MemoryError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: is not a whole PLY file ({reason})") from error


def _element(ply: PlyData, path: Path, name: str) -> PlyElement:
    if name not in ply:
        raise InputError(f"{path}: has no element {name!r}")
    return ply[name]


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected an object, got {type(content).__name__}")
    return content
