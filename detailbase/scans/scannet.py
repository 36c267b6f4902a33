"""Scans in ScanNet's layout.

``<scan>/<scan>_vh_clean_2.ply`` is the mesh, ``_vh_clean_2.labels.ply`` the same vertices with
NYU40 labels, ``_vh_clean_2.0.010000.segs.json`` the segment of each vertex, and
``.aggregation.json`` the segments of each object.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detailbase.ops import cloud_superpoints, mesh_superpoints
from detailbase.scans.clouds import NONE, Cloud, check_extent
from detailbase.scans.meshes import Mesh, read_mesh, read_ply, vertices_of
from refer3d.runs.errors import InputError
from refer3d.runs.records import as_kind, read_json, short, take

MESH = "_vh_clean_2.ply"
LABELS = "_vh_clean_2.labels.ply"
SEGMENTS = "_vh_clean_2.0.010000.segs.json"
OBJECTS = ".aggregation.json"
AGAIN = "copy the file again"
CLASSES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36, 39)
"""NYU40 ids of ScanNet's 20 classes."""


def read_scan(folder: Path) -> tuple[Cloud, list[str]]:
    """Reads a scan with its objects.

    Only the mesh is required. Without ``segs.json`` the segments are computed, and the objects,
    which refer to its numbers, are unknown.

    Args:
        folder: Folder of the scan, with its name.

    Returns:
        cloud: The scan; its superpoints are the segments.
        missing: Suffixes of the absent files.

    Raises:
        InputError: A file is broken, or does not belong to the mesh.
    """
    paths = _paths(folder)
    mesh = read_mesh(paths[MESH])
    count = len(mesh.vertices)
    missing = missing_files(folder)
    semantic = instances = np.full(count, NONE, dtype=np.int64)
    if LABELS not in missing:
        semantic = read_semantic(paths[LABELS], count)
    if SEGMENTS in missing:
        superpoints = compute_superpoints(mesh)
    else:
        segments = read_segments(paths[SEGMENTS], count)
        superpoints = torch.from_numpy(np.unique(segments, return_inverse=True)[1])
        if OBJECTS not in missing:
            instances = read_instances(paths[OBJECTS], segments)
    xyz = torch.from_numpy(mesh.vertices)
    check_extent(xyz, paths[MESH])
    cloud = Cloud(
        xyz=(xyz - xyz.mean(dim=0)).float(),
        rgb=torch.from_numpy(mesh.colors).float() / 127.5 - 1,
        superpoints=superpoints,
        semantic=torch.from_numpy(semantic),
        instances=torch.from_numpy(instances),
    )
    return cloud, missing


def missing_files(folder: Path) -> list[str]:
    """Lists the suffixes of a scan's absent files."""
    return [name for name, path in _paths(folder).items() if not path.is_file()]


def _paths(folder: Path) -> dict[str, Path]:
    return {name: folder / f"{folder.name}{name}" for name in (MESH, LABELS, SEGMENTS, OBJECTS)}


def compute_superpoints(mesh: Mesh) -> Tensor:  # [N]
    """Computes superpoints as ScanNet's segmentator does; without faces, from the points."""
    vertices = torch.from_numpy(mesh.vertices).float()
    if len(mesh.faces):
        return mesh_superpoints(vertices, torch.from_numpy(mesh.faces), rule="scannet")
    return cloud_superpoints(vertices)


def read_semantic(path: Path, count: int) -> np.ndarray:
    """Reads ScanNet's class of each vertex [N], 0 to 19 or ``NONE``."""
    vertex = vertices_of(read_ply(path), path)
    kinds = {p.name: p for p in vertex.properties}
    if "label" not in kinds or vertex.data["label"].dtype.kind not in "iu":
        raise InputError(f"{path}: its vertices need whole numbers as label; copy it again")
    labels = np.asarray(vertex["label"])
    if len(labels) != count:
        raise InputError(
            f"{path}: has labels of {len(labels)} vertices, but the mesh has {count}; the two "
            "files do not belong together"
        )
    classes = np.full(count, NONE, dtype=np.int64)
    for index, label in enumerate(CLASSES):
        classes[labels == label] = index
    return classes


def read_segments(path: Path, count: int) -> np.ndarray:
    """Reads the segment of each vertex [N], in any numbering."""
    segments = _integers(read_json(path, dict), "segIndices", f"{path}")
    if len(segments) != count:
        raise InputError(
            f"{path}: segIndices has {len(segments)} entries, but the mesh has {count} vertices; "
            "the two files do not belong together"
        )
    return np.array(segments, dtype=np.int64)


def read_instances(path: Path, segments: np.ndarray) -> np.ndarray:
    """Reads the object of each vertex [N]: ``id`` of its segment's group, or ``NONE``.

    If several groups name a segment, the first one counts: one of ScanNet's scans lists its objects
    twice.
    """
    names, rows = np.unique(segments, return_inverse=True)
    owners = np.full(len(names), NONE, dtype=np.int64)
    for where, identity, group in reversed(_groups(path)):
        members = _integers(group, "segments", where)
        if absent := sorted(set(members).difference(names.tolist())):
            raise InputError(
                f"{where}: segment {absent[0]} is not in the scan's segs.json; the two files do "
                "not belong together"
            )
        owners[np.searchsorted(names, members)] = identity
    return owners[rows]


def read_labels(folder: Path) -> dict[int, str]:
    """Reads the label of each object of a scan.

    Raises:
        InputError: The file of objects is broken.
    """
    groups = reversed(_groups(_paths(folder)[OBJECTS]))
    return {identity: take(group, "label", str, where, AGAIN) for where, identity, group in groups}


def _groups(path: Path) -> list[tuple[str, int, dict[str, Any]]]:
    """Reads the groups of segments with their places in the file and their objects' ids."""
    groups = take(read_json(path, dict), "segGroups", list, f"{path}", AGAIN)
    found = []
    for index, group in enumerate(groups):
        where = f"{path}: segGroups[{index}]"
        identity = as_kind(group, dict, where, AGAIN).get("id", group.get("objectId"))
        if type(identity) is not int or not 0 <= identity < 2**31:
            raise InputError(
                f"{where}: id: expected an integer from 0 to 2^31, got {short(identity)}; {AGAIN}"
            )
        found.append((where, identity, group))
    return found


def _integers(record: dict[str, Any], key: str, where: str) -> list[int]:
    """Returns a field that is a list of integers of 64 bits."""
    values = take(record, key, list, where, AGAIN)
    for index, value in enumerate(values):
        if type(value) is not int or not -(2**63) <= value < 2**63:
            raise InputError(
                f"{where}: {key}[{index}]: expected an integer, got {short(value)}; {AGAIN}"
            )
    return values
