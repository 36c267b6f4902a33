"""A scan of one's own: any PLY file, with or without faces."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from detailbase.data.clouds import NONE, Cloud
from detailbase.data.meshes import read_mesh
from detailbase.ops import cloud_superpoints, mesh_superpoints
from runs.errors import InputError

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
SMALLEST, LARGEST = 0.1, 200.0
"""Metres that a scan reaches from end to end; others are in another unit."""


class Scan(NamedTuple):
    """What was read."""

    cloud: Cloud
    vertices: np.ndarray
    """[N, 3] float32, the kept points as they stand in the file."""
    colors: np.ndarray
    """[N, 3] uint8."""
    rows: np.ndarray
    """[N] which of the file's points were kept."""
    total: int
    """How many the file has."""


def read_scan_file(
    path: Path, unit: str = "m", up: str = "z", max_points: int = 1_000_000, seed: int = 0
) -> Scan:
    """Reads a scan, puts it upright in metres, and finds its superpoints.

    Args:
        path: A PLY file.
        unit: One of ``UNITS``.
        up: One of ``UPS``.
        max_points: Of a larger scan so many points are kept, chosen at random; its faces are then
            of no use.
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
    centred = vertices.astype(np.float64) - vertices.astype(np.float64).mean(axis=0)
    xyz = centred * UNITS[unit] @ np.array(UPS[up], dtype=np.float64).T
    extent = float((xyz.max(axis=0) - xyz.min(axis=0)).max())
    if not SMALLEST <= extent <= LARGEST:
        raise InputError(
            f"{path}: reaches over {extent:.3g} m if its unit is {unit}, expected {SMALLEST:g} to "
            f"{LARGEST:g}; give --unit {' or '.join(name for name in UNITS if name != unit)}"
        )
    places = torch.from_numpy(xyz.astype(np.float32))
    if len(mesh.faces) and len(rows) == total:
        superpoints = mesh_superpoints(places, torch.from_numpy(mesh.faces))
    else:
        superpoints = cloud_superpoints(places)
    nothing = torch.full((len(places),), NONE)
    rgb = torch.from_numpy(colors).float() / 127.5 - 1
    cloud = Cloud(places, rgb, superpoints, nothing, nothing)
    return Scan(cloud, vertices, colors, rows, total)
