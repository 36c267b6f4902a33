"""Initial Gaussians of the first stage."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from refersplat.cameras import Camera, look_at_point
from refersplat.config import RgbConfig
from refersplat.data import Scene
from refersplat.data.units import RANDOM_EXTENTS, REACH, num_cameras
from refersplat.ops import knn
from refersplat.ops.reference import SH_0
from refersplat.splats.gaussians import Gaussians, padded_sh

START_OPACITY = 0.1
NEIGHBOURS = 3
MIN_SQUARED_DISTANCE = 1e-7
MIN_CAMERAS = 2
"""A random point must lie in the images of this many cameras."""
ROUNDS = 50


def initial_gaussians(scene: Scene, config: RgbConfig, generator: torch.Generator) -> Gaussians:
    """One Gaussian for each point of structure from motion; random ones without points."""
    if scene.points is None:
        cameras = [view.camera for view in scene.train]
        points = random_points(cameras, scene.extent, config.random_points, generator)
        return gaussians_at(points, torch.full_like(points, 0.5))
    return gaussians_at(*scene.points)


def gaussians_at(
    points: Tensor,  # [N, 3]
    colors: Tensor,  # [N, 3] in 0..1
) -> Gaussians:
    """Faint spheres with the root mean square distance to their nearest neighbours as deviation."""
    count = len(points)
    neighbours = min(NEIGHBOURS, count - 1)
    if neighbours:
        squared, _ = knn(points, points, neighbours + 1)  # the nearest is the point itself
        spread = squared[:, 1:].mean(dim=1).clamp(min=MIN_SQUARED_DISTANCE).sqrt()
    else:
        spread = points.new_full((count,), 1.0)
    quats = points.new_zeros(count, 4)
    quats[:, 0] = 1
    return Gaussians(
        means=points.clone(),
        log_scales=spread.log()[:, None].repeat(1, 3),
        quats=quats,
        logit_opacities=points.new_full((count,), START_OPACITY).logit(),
        sh=padded_sh((colors[:, None] - 0.5) / SH_0),
    )


def random_points(
    cameras: Sequence[Camera], extent: float, count: int, generator: torch.Generator
) -> Tensor:  # [count, 3]
    """Uniform points of a cube, those that at least ``MIN_CAMERAS`` cameras see.

    The cube is centred on the cameras' :func:`look_at_point` and reaches as far as the farthest
    camera. Without such a point it is centred on the mean camera and reaches three extents.
    """
    positions = torch.stack([camera.position for camera in cameras])  # [V, 3]
    center = look_at_point(cameras, reach=REACH * extent)
    if center is not None:
        half = float((positions - center).norm(dim=1).max())
    else:
        center, half = positions.mean(dim=0), RANDOM_EXTENTS * extent
    least = min(MIN_CAMERAS, len(cameras))
    visible: list[Tensor] = []
    for _ in range(ROUNDS):
        points = center + half * (2 * torch.rand(count, 3, generator=generator) - 1)
        visible.append(points[num_cameras(points, cameras) >= least])
        if sum(map(len, visible)) >= count:
            break
    return torch.cat([*visible, points])[:count]
