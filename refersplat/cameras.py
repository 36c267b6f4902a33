"""One frozen pinhole camera; world, camera and pixel frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from refer3d.runs.device import to_device

NEAR = 0.2
"""Units before a camera from which on Gaussians are drawn."""


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without distortion.

    World to camera: ``p_camera = world_to_camera[:3, :3] @ p_world + world_to_camera[:3, 3]``, the
    camera looks along +z, x right, y down (COLMAP's frame). Lengths are in the scene's unit.
    """

    world_to_camera: Tensor
    """[4, 4] float32, rigid."""
    fx: float
    """Focal lengths in pixels."""
    fy: float
    cx: float
    """Principal point in pixels from the image's upper left corner: a pixel's centre lies at .5,
    so an exactly centred one is ``width / 2`` (COLMAP's convention)."""
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
        x, y = width / self.width, height / self.height
        return replace(
            self,
            fx=self.fx * x,
            fy=self.fy * y,
            cx=self.cx * x,
            cy=self.cy * y,
            width=width,
            height=height,
        )

    def to(self, device: torch.device | str) -> Camera:
        """The same camera with its pose on ``device``."""
        return replace(self, world_to_camera=to_device(self.world_to_camera, device))


def look_at_point(cameras: Sequence[Camera], reach: float) -> Tensor | None:  # [3]
    """The point nearest to all optical axes, in the sense of least squares.

    None where the cameras have no such point before them, because they look outwards or all in one
    direction, where it is farther than ``reach`` from most, or of one camera alone.
    """
    positions = torch.stack([camera.position for camera in cameras])  # [V, 3]
    axes = torch.stack([camera.world_to_camera[2, :3] for camera in cameras])  # [V, 3]
    across = torch.eye(3) - axes[:, :, None] * axes[:, None, :]  # [V, 3, 3]
    target = (across @ positions[:, :, None]).sum(dim=0)  # [3, 1]
    inverse = torch.linalg.pinv(across.sum(dim=0), hermitian=True, rtol=1e-6)
    center = (inverse @ target)[:, 0]
    depths = ((center - positions) * axes).sum(dim=1)  # [V]
    is_before = (
        len(cameras) > 1
        and bool((depths > 0).float().mean() > 0.9)
        and float(depths.median()) < reach
    )
    return center if is_before else None
