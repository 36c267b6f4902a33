"""How large a scene is in its unit, and where it lies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from refer3d.runs.errors import InputError
from refersplat.cameras import NEAR, Camera

COARSEST = 1e-4
"""Share of a scene's extent that its places must be told apart by."""
SOME_POINTS = 1000


def camera_extent(cameras: Sequence[Camera], warnings: list[str]) -> float:
    """How far the cameras reach, which learning rates and sizes are measured by."""
    positions = torch.stack([camera.position for camera in cameras])  # [V, 3]
    radius = float((positions - positions.mean(dim=0)).norm(dim=1).max())
    if radius == 0:
        warnings.append("all training cameras stand at one place; the scene's extent is taken as 1")
        return 1.0
    return 1.1 * radius


def check_units(
    path: Path,
    cameras: Sequence[Camera],
    points: Tensor | None,  # [P, 3]
    extent: float,
    warnings: list[str],
) -> None:
    """Checks that 32 bits tell places apart, and that what the cameras look at is drawn.

    Raises:
        InputError: The scene lies too far from the origin, or is too small.
    """
    positions = torch.stack([camera.position for camera in cameras])  # [V, 3]
    far = float(positions.norm(dim=1).max())
    if far * 2**-23 > COARSEST * extent:
        raise InputError(
            f"{path}: the cameras stand {far:.3g} units from the origin, where 32 bits tell places "
            f"apart by {far * 2**-23:.2g} only; move cameras and points towards the origin"
        )
    if points is None:
        return
    chosen = points[:: max(1, len(points) // SOME_POINTS)]
    axes = torch.stack([camera.world_to_camera[2, :3] for camera in cameras])  # [V, 3]
    depths = chosen @ axes.T - (positions * axes).sum(dim=1)  # [P, V]
    middle = float(depths[depths > 0].median()) if (depths > 0).any() else NEAR
    said = (
        f"{path}: points lie {middle:.2g} units before the cameras, and nothing nearer than {NEAR} "
        "is drawn; make cameras and points larger"
    )
    if middle < NEAR:
        raise InputError(said)
    if middle < 2 * NEAR:
        warnings.append(said)
