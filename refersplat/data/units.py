"""Extent of a scene, and checks of its unit and position."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from refer3d.runs.errors import InputError
from refersplat.cameras import NEAR, Camera

COARSEST = 1e-4
"""Largest spacing of float32 coordinates, as a share of the scene's extent."""
_SAMPLES = 1000


def camera_extent(cameras: Sequence[Camera], warnings: list[str]) -> float:
    """1.1 × the largest distance of a camera from their mean, in scene units."""
    positions = torch.stack([camera.position for camera in cameras])  # [V, 3]
    radius = float((positions - positions.mean(dim=0)).norm(dim=1).max())
    if radius == 0:
        warnings.append("all training cameras have one position; the scene's extent is set to 1")
        return 1.0
    return 1.1 * radius


def check_units(
    path: Path,
    cameras: Sequence[Camera],
    points: Tensor | None,  # [P, 3]
    extent: float,
    warnings: list[str],
) -> None:
    """Checks that float32 resolves the scene, and that it lies beyond the near plane.

    Raises:
        InputError: The scene is too far from the origin, or too small.
    """
    positions = torch.stack([camera.position for camera in cameras])  # [V, 3]
    far = float(positions.norm(dim=1).max())
    if far * 2**-23 > COARSEST * extent:
        raise InputError(
            f"{path}: the cameras are {far:.3g} units from the origin, where float32 resolves only "
            f"{far * 2**-23:.2g}; move cameras and points towards the origin"
        )
    if points is None:
        return
    chosen = points[:: max(1, len(points) // _SAMPLES)]
    axes = torch.stack([camera.world_to_camera[2, :3] for camera in cameras])  # [V, 3]
    depths = chosen @ axes.T - (positions * axes).sum(dim=1)  # [P, V]
    middle = float(depths[depths > 0].median()) if (depths > 0).any() else NEAR
    message = (
        f"{path}: the points' median depth is {middle:.2g} units, the near plane lies at {NEAR}; "
        "scale cameras and points up"
    )
    if middle < NEAR:
        raise InputError(message)
    if middle < 2 * NEAR:
        warnings.append(message)
