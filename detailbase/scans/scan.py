"""A scan of one's own: any PLY file, with or without faces."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from detailbase.ops import cloud_superpoints, mesh_superpoints
from detailbase.scans.clouds import LARGEST, NONE, Cloud
from detailbase.scans.meshes import read_mesh
from refer3d.runs.errors import InputError

UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001}
"""Metres of a file's unit."""
UPS = {
    "z": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "-z": ((1, 0, 0), (0, -1, 0), (0, 0, -1)),
    "y": ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
    "-y": ((1, 0, 0), (0, 0, 1), (0, -1, 0)),
    "x": ((0, 0, -1), (0, 1, 0), (1, 0, 0)),
    "-x": ((0, 0, 1), (0, 1, 0), (-1, 0, 0)),
}
"""What turns each axis up, as the rows of a rotation."""
SMALLEST = 0.1
"""Metres that a scan reaches from end to end at least."""
ROOM, CUBE, CROWDED = 2.5, 0.04, 2.0
"""Metres from which a scan is a room; and of a room, from so many points in a cube of that side
(metres) on, those in a cube become one. ScanNet's meshes have 1.2 there. Of denser scans
superpoints would be others than those that networks know. Chosen on the room that comes along,
subdivided and sampled: with 2 to 20 times its points, its objects are found as in the original from
0.04 on."""


class Scan(NamedTuple):
    """What was read."""

    cloud: Cloud
    """What the network sees: as dense as the scans that networks learn from, or less."""
    owner: np.ndarray
    """[N] which of the cloud's points stands for each of the kept ones."""
    vertices: np.ndarray
    """[N, 3] float64, the kept points as they stand in the file."""
    colors: np.ndarray
    """[N, 3] uint8."""
    rows: np.ndarray
    """[N] which of the file's points were kept."""
    total: int
    """How many the file has."""


def read_scan_file(
    path: Path,
    unit: str = "m",
    up: str = "z",
    max_points: int = 1_000_000,
    rule: Literal["area", "scannet"] = "area",
    seed: int = 0,
) -> Scan:
    """Reads a scan, puts it upright in metres, and finds its superpoints.

    Args:
        path: A PLY file.
        unit: One of ``UNITS``.
        up: One of ``UPS``.
        max_points: Of a larger scan so many points are kept, chosen at random; its faces are then
            of no use. What is denser than ScanNet's rooms is thinned by itself, for the network.
        rule: By which :func:`mesh_superpoints` cuts a mesh.
        seed: Of that choice.

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
    # A cloud with a few stray faces is no mesh: each of its other points would stay alone.
    is_mesh = len(rows) == total and len(np.unique(mesh.faces)) > total / 2
    faces, rgb, owner = mesh.faces, colors / 127.5 - 1, np.arange(len(xyz))
    cubes = in_cubes(xyz, CUBE)
    if extent >= ROOM and len(xyz) > CROWDED * (cubes.max() + 1):
        owner = cubes
        xyz, rgb = mean_by(cubes, xyz), mean_by(cubes, rgb)
        faces = cubes[faces]
        faces = faces[(faces != np.roll(faces, 1, axis=1)).all(axis=1)]
    places = torch.from_numpy(xyz.astype(np.float32))
    if is_mesh:
        superpoints = mesh_superpoints(places, torch.from_numpy(faces), rule=rule)
    else:
        superpoints = cloud_superpoints(places)
    nothing = torch.full((len(places),), NONE)
    cloud = Cloud(places, torch.from_numpy(rgb).float(), superpoints, nothing, nothing)
    return Scan(cloud, owner, vertices, colors, rows, total)


def in_cubes(xyz: np.ndarray, side: float) -> np.ndarray:  # [N, 3] -> [N]
    """Numbers of the cubes that points lie in, from 0 without gaps."""
    cells = ((xyz - xyz.min(axis=0)) / side).astype(np.int64)
    sizes = cells.max(axis=0) + 1
    keys = (cells[:, 0] * sizes[1] + cells[:, 1]) * sizes[2] + cells[:, 2]
    return np.unique(keys, return_inverse=True)[1]


def mean_by(group: np.ndarray, values: np.ndarray) -> np.ndarray:  # [N], [N, C] -> [G, C]
    """The mean of each group's rows."""
    sums = [np.bincount(group, weights=column) for column in values.T]
    return np.stack(sums, axis=1) / np.bincount(group)[:, None]


def _wrong_extent(path: Path, extent: float, unit: str) -> str:
    """What to say of a scan whose size makes no sense."""
    if not extent:
        return f"{path}: all its points are at one place; scan or export it again"
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
