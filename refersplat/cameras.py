"""One frozen pinhole camera; world, camera and pixel frames."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


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
    def tan_x(self) -> float:
        """Tangent of half the horizontal field of view."""
        return self.width / (2 * self.fx)

    @property
    def tan_y(self) -> float:
        """Tangent of half the vertical field of view."""
        return self.height / (2 * self.fy)

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
        return replace(self, world_to_camera=self.world_to_camera.to(device))
