"""A view with masks of the objects that its sentences name, as training reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from refer3d.runs.device import to_device
from refersplat.cameras import Camera


class Target(NamedTuple):
    """An object that a view shows, or several that sentences mean together."""

    sentences: list[int]
    """Rows of the training sentences."""
    mask: np.ndarray
    """[H, ceil(W / 8)] uint8, its pixels, eight to a byte along the rows."""
    count: int = 1
    """Number of objects that each of the sentences means together."""


@dataclass(frozen=True)
class SupervisedView:
    """A camera and the masks of the objects that it shows."""

    name: str
    """Name of the photo."""
    camera: Camera
    targets: list[Target]

    def masks(self, chosen: Sequence[int], device: torch.device | str) -> Tensor:
        """Unpacks the masks [B, H, W] of some targets on a device."""
        packed = np.stack([self.targets[index].mask for index in chosen])
        bits = torch.arange(7, -1, -1, dtype=torch.uint8, device=device)
        pixels = to_device(torch.from_numpy(packed), device)[..., None] >> bits & 1
        return pixels.bool().flatten(-2)[..., : self.camera.width]
