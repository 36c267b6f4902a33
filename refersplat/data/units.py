"""Extent of a scene, and checks of its unit and position."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from refer3d.runs.errors import InputError
from refersplat.cameras import NEAR, Camera, look_at_point

COARSEST = 1e-4
"""Largest spacing of float32 coordinates, as a share of the scene's extent."""
REACH = 20
"""Extents within which cameras look at a point."""
RANDOM_EXTENTS = 3
"""Extents to which random points reach where cameras look at none."""
STRAY = 100
"""A camera as many times as far from the middle as most others is taken for a wrong pose."""
_SAMPLES = 1000


def camera_extent(cameras: Sequence[Camera], warnings: list[str]) -> float:
    """1.1 × the largest distance of a camera from their mean, in scene units."""
    positions = torch.stack([camera.position for camera in cameras])  # [V, 3]
    radius = float((positions - positions.mean(dim=0)).norm(dim=1).max())
    if radius == 0:
        warnings.append("all training cameras have one position; the scene's extent is set to 1")
        return 1.0
    distances = (positions - positions.median(dim=0).values).norm(dim=1)
    if num := int((distances > STRAY * distances.median()).sum()) * (len(cameras) > 2):
        warnings.append(
            f"{num} of {len(cameras)} training cameras are more than {STRAY} times as far from the "
            f"middle as most, and decide about the scene's extent, {1.1 * radius:.3g}; leave out "
            "images that were registered wrongly"
        )
    return 1.1 * radius


def check_units(
    path: Path,
    cameras: Sequence[Camera],
    points: Tensor | None,  # [P, 3]
    extent: float,
    warnings: list[str],
) -> None:
    """Checks that float32 resolves the scene, and that it lies beyond the near plane.

    Without points the depth is that of the point at which the cameras look, or else of the random
    points that training starts from.

    Raises:
        InputError: The scene is too far from the origin, or too small.
    """
    positions = torch.stack([camera.position for camera in cameras])  # [V, 3]
    far = float(positions.norm(dim=1).max())
    if not (math.isfinite(far * extent) and far * 2**-23 <= COARSEST * extent):
        raise InputError(
            f"{path}: the cameras are {far:.3g} units from the origin, where float32 resolves only "
            f"{far * 2**-23:.2g}; move cameras and points towards the origin"
        )
    if points is None:
        center = look_at_point(cameras, reach=REACH * extent)
        if center is None:
            name, depths = "random points' largest depth", torch.tensor([RANDOM_EXTENTS * extent])
        else:
            name, depths = "depth of the point looked at", _depths(center[None], cameras)
    else:
        bad = int((~points.square().sum(dim=1).isfinite()).sum())
        if bad:
            raise InputError(
                f"{path}: {bad} of {len(points)} points are too far from the origin for float32, "
                f"the farthest {float(points.abs().max()):.3g} units; remove them"
            )
        name = "points' median depth"
        depths = _depths(points[:: max(1, len(points) // _SAMPLES)], cameras)
    middle = float(depths[depths > 0].median()) if (depths > 0).any() else NEAR
    message = (
        f"{path}: the {name} is {middle:.2g} units, the near plane lies at {NEAR}; scale cameras "
        f"{'and points ' if points is not None else ''}up"
    )
    if middle < NEAR:
        raise InputError(message)
    if points is not None:
        check_visible(path, points, cameras)
    if middle < 2 * NEAR:
        warnings.append(message)


def _depths(points: Tensor, cameras: Sequence[Camera]) -> Tensor:  # [P, V]
    axes = torch.stack([camera.world_to_camera[2, :3] for camera in cameras])  # [V, 3]
    positions = torch.stack([camera.position for camera in cameras])  # [V, 3]
    return points @ axes.T - (positions * axes).sum(dim=1)


def check_visible(path: Path | str, points: Tensor, cameras: Sequence[Camera]) -> None:
    """Checks that some camera sees some of the points [P, 3] of a file.

    Raises:
        InputError: None does.
    """
    if not num_cameras(points[:: max(1, len(points) // (10 * _SAMPLES))], cameras).any():
        raise InputError(
            f"{path}: none of the {len(points)} points lies in an image of the {len(cameras)} "
            f"training cameras, {NEAR} units before it or more; give points and poses of one scene "
            "in the same coordinates"
        )


def num_cameras(points: Tensor, cameras: Sequence[Camera]) -> Tensor:  # [P, 3] -> [P] int64
    """Number of cameras in whose images each point lies, occluded or not."""
    counts = torch.zeros(len(points), dtype=torch.int64)
    for camera in cameras:
        rotation, translation = camera.world_to_camera[:3, :3], camera.world_to_camera[:3, 3]
        x, y, z = (points @ rotation.T + translation).unbind(dim=1)
        column, row = camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy
        inside = (column > 0) & (column < camera.width) & (row > 0) & (row < camera.height)
        counts += inside & (z > NEAR)
    return counts
