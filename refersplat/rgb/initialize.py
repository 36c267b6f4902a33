"""The Gaussians that training starts from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from refersplat.cameras import Camera, look_at_point
from refersplat.config import RgbConfig
from refersplat.data import Scene
from refersplat.ops import knn
from refersplat.ops.reference import SH_0
from refersplat.splats.gaussians import Gaussians, padded_sh

START_OPACITY = 0.1
NEIGHBOURS = 3
MIN_SQUARED_DISTANCE = 1e-7
SEEN_BY = 2
"""A random point must lie in the images of this many cameras."""
ROUNDS = 50


def starting_gaussians(scene: Scene, config: RgbConfig, generator: torch.Generator) -> Gaussians:
    """One Gaussian for each point of structure from motion, or random ones where there is none."""
    if scene.points is None:
        cameras = [view.camera for view in scene.train]
        points = random_points(cameras, scene.extent, config.random_points, generator)
        return gaussians_at(points, torch.full_like(points, 0.5))
    return gaussians_at(*scene.points)


def gaussians_at(
    points: Tensor,  # [N, 3]
    colors: Tensor,  # [N, 3] in 0..1
) -> Gaussians:
    """Faint spheres that reach about as far as their nearest neighbours."""
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
    """Points in a cube around what the cameras look at, where at least two of them see it.

    The centre is their :func:`look_at_point`, and the cube reaches as far from it as the farthest
    camera. Without such a point it is the middle of the cameras, and the cube three extents wide
    each way.
    """
    positions = torch.stack([camera.position for camera in cameras])  # [V, 3]
    center = look_at_point(cameras, reach=20 * extent)
    if center is not None:
        half = float((positions - center).norm(dim=1).max())
    else:
        center, half = positions.mean(dim=0), 3 * extent
    needed = min(SEEN_BY, len(cameras))
    found: list[Tensor] = []
    for _ in range(ROUNDS):
        points = center + half * (2 * torch.rand(count, 3, generator=generator) - 1)
        found.append(points[_times_seen(points, cameras) >= needed])
        if sum(map(len, found)) >= count:
            break
    return torch.cat([*found, points])[:count]


def _times_seen(points: Tensor, cameras: Sequence[Camera]) -> Tensor:  # [N]
    seen = torch.zeros(len(points), dtype=torch.int64)
    for camera in cameras:
        rotation, translation = camera.world_to_camera[:3, :3], camera.world_to_camera[:3, 3]
        x, y, z = (points @ rotation.T + translation).unbind(dim=1)
        column, row = camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy
        inside = (column > 0) & (column < camera.width) & (row > 0) & (row < camera.height)
        seen += inside & (z > 0.2)
    return seen
