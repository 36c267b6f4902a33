"""The pinhole camera: world, camera and pixel frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from refer3d.runs.device import to_device

NEAR = 0.2
"""Near plane, in scene units."""

Intrinsics = TypeVar("Intrinsics", bound=Any)
"""A dataclass with fx, fy, cx, cy, width and height: a camera or a lens."""


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without distortion.

    ``p_camera = world_to_camera[:3, :3] @ p_world + world_to_camera[:3, 3]`` in scene units; the
    camera looks along +z, x right, y down (COLMAP's frame).
    """

    world_to_camera: Tensor
    """[4, 4] float32, rigid."""
    fx: float
    """Focal lengths in pixels."""
    fy: float
    cx: float
    """Principal point in pixels. Pixel centres lie at .5 (COLMAP's convention): the image centre
    is ``width / 2``."""
    cy: float
    width: int
    height: int

    @property
    def position(self) -> Tensor:  # [3]
        """The camera's centre in the world frame."""
        rotation, translation = self.world_to_camera[:3, :3], self.world_to_camera[:3, 3]
        return -rotation.T @ translation

    def resized(self, width: int, height: int) -> Camera:
        """The same camera for an image of another size."""
        return resized(self, width, height)

    def to(self, device: torch.device | str) -> Camera:
        """The same camera with its pose on ``device``."""
        return replace(self, world_to_camera=to_device(self.world_to_camera, device))


def resized(camera: Intrinsics, width: int, height: int) -> Intrinsics:
    """The same camera for an image of another size."""
    x, y = width / camera.width, height / camera.height
    focal = {"fx": camera.fx * x, "fy": camera.fy * y}
    return replace(camera, **focal, cx=camera.cx * x, cy=camera.cy * y, width=width, height=height)


def look_at_point(cameras: Sequence[Camera], reach: float) -> Tensor | None:  # [3]
    """The point nearest to all optical axes by least squares, or None.

    None for one camera, for cameras that look outwards or all in one direction, and where the point
    is farther than ``reach`` from most of them.
    """
    positions = torch.stack([camera.position for camera in cameras])  # [V, 3]
    axes = torch.stack([camera.world_to_camera[2, :3] for camera in cameras])  # [V, 3]
    across = torch.eye(3) - axes[:, :, None] * axes[:, None, :]  # [V, 3, 3]
    target = (across @ positions[:, :, None]).sum(dim=0)  # [3, 1]
    inverse = torch.linalg.pinv(across.sum(dim=0), hermitian=True, rtol=1e-6)
    center = (inverse @ target)[:, 0]
    depths = ((center - positions) * axes).sum(dim=1)  # [V]
    is_before = bool((depths > 0).float().mean() > 0.9) and float(depths.median()) < reach
    return center if is_before and len(cameras) > 1 else None
