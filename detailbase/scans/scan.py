"""Scans for inference: any PLY file, with or without faces."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from detailbase.config import UNITS, UPS
from detailbase.ops import cloud_superpoints, mesh_superpoints
from detailbase.scans.clouds import LARGEST, NONE, Cloud
from detailbase.scans.meshes import read_mesh
from refer3d.runs.errors import InputError

SMALLEST = 0.1
"""Least extent of a scan in metres."""
ROOM = 2.5
"""Least extent of a room in metres."""
CUBE, CROWDED = 0.04, 2.0
"""Side of a cube in metres, and the mean number of points in one from which on a room is thinned to
one point per cube. ScanNet's meshes have 1.2. Superpoints of denser scans would differ from those
that networks were trained with. Chosen on the package's room, subdivided and sampled: with 2 to 20
times its points, the masks are as those of the original from 0.04 on."""


class Scan(NamedTuple):
    """A scan as the network sees it and as its file has it."""

    cloud: Cloud
    """Input of the network: at most as dense as the scans of training."""
    owner: np.ndarray
    """[N] the cloud's point for each of the kept points."""
    vertices: np.ndarray
    """[N, 3] float64, the kept points in the file's unit and axes."""
    colors: np.ndarray
    """[N, 3] uint8."""
    rows: np.ndarray
    """[N] indices of the kept points in the file."""
    total: int
    """Number of points in the file."""


def read_scan_file(
    path: Path,
    unit: str = "m",
    up: str = "z",
    max_points: int = 1_000_000,
    rule: Literal["area", "scannet"] = "area",
    seed: int = 0,
) -> Scan:
    """Reads a scan, turns it upright, converts it to metres, and computes its superpoints.

    Args:
        path: A PLY file.
        unit: Unit of the file, one of ``UNITS``.
        up: Vertical axis of the file, one of ``UPS``.
        max_points: Number of points that are kept of a larger scan, at random; its faces are then
            ignored. Rooms denser than ScanNet's are also thinned for the network.
        rule: Rule of :func:`mesh_superpoints`.
        seed: Seed of that choice.

    Raises:
        InputError: The file is absent or broken, or its size makes no sense in the unit.
    """
    mesh = read_mesh(path)
    total = len(mesh.vertices)
    rows = np.arange(total)
    if total > max_points:
        rows = np.sort(np.random.default_rng(seed).choice(total, max_points, replace=False))
    vertices, colors = mesh.vertices[rows], mesh.colors[rows]
    xyz = (vertices - vertices.mean(axis=0)) * UNITS[unit] @ np.array(UPS[up], dtype=np.float64).T
    extent = float((xyz.max(axis=0) - xyz.min(axis=0)).max())
    if not SMALLEST <= extent <= LARGEST:
        raise InputError(_wrong_extent(path, extent, unit))
    # With a few stray faces, each of the other points would be a superpoint of its own.
    is_mesh = len(rows) == total and len(np.unique(mesh.faces)) > total / 2
    faces, rgb, owner = mesh.faces, colors / 127.5 - 1, np.arange(len(xyz))
    cubes = cube_indices(xyz, CUBE)
    if extent >= ROOM and len(xyz) > CROWDED * (cubes.max() + 1):
        owner = cubes
        xyz, rgb = mean_by(cubes, xyz), mean_by(cubes, rgb)
        faces = cubes[faces]
        faces = faces[(faces != np.roll(faces, 1, axis=1)).all(axis=1)]
    positions = torch.from_numpy(xyz.astype(np.float32))
    if is_mesh:
        superpoints = mesh_superpoints(positions, torch.from_numpy(faces), rule=rule)
    else:
        superpoints = cloud_superpoints(positions)
    unlabelled = torch.full((len(positions),), NONE)
    cloud = Cloud(positions, torch.from_numpy(rgb).float(), superpoints, unlabelled, unlabelled)
    return Scan(cloud, owner, vertices, colors, rows, total)


def cube_indices(xyz: np.ndarray, side: float) -> np.ndarray:  # [N, 3] -> [N]
    """Numbers the cubes that points lie in, from 0 without gaps."""
    cells = ((xyz - xyz.min(axis=0)) / side).astype(np.int64)
    sizes = cells.max(axis=0) + 1
    keys = (cells[:, 0] * sizes[1] + cells[:, 1]) * sizes[2] + cells[:, 2]
    return np.unique(keys, return_inverse=True)[1]


def mean_by(group: np.ndarray, values: np.ndarray) -> np.ndarray:  # [N], [N, C] -> [G, C]
    """Averages the rows of each group."""
    sums = [np.bincount(group, weights=column) for column in values.T]
    return np.stack(sums, axis=1) / np.bincount(group)[:, None]


def _wrong_extent(path: Path, extent: float, unit: str) -> str:
    """Describes an implausible extent, with the unit that would fit."""
    if not extent:
        return f"{path}: all its points coincide; scan or export it again"
    fits = [
        other
        for other, metres in UNITS.items()
        if SMALLEST <= extent / UNITS[unit] * metres <= LARGEST
    ]
    advice = f"give --unit {' or '.join(fits)}" if fits else "give it in metres"
    return (
        f"{path}: reaches over {extent:.3g} m if its unit is {unit}, expected {SMALLEST:g} to "
        f"{LARGEST:g}; {advice}"
    )
