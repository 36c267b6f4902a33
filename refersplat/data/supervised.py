"""A view with masks of the objects that its sentences name, as training reads it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from refer3d.runs.device import to_device
from refersplat.cameras import Camera


class Target(NamedTuple):
    """One object that a view shows."""

    sentences: list[int]
    """Rows of the training sentences."""
    mask: np.ndarray
    """[H, ceil(W / 8)] uint8, its pixels, eight to a byte along the rows."""


@dataclass(frozen=True)
class SupervisedView:
    """A camera and the masks of the objects that it shows."""

    name: str
    """Name of the photo."""
    camera: Camera
    targets: list[Target]

    def masks(self, chosen: Sequence[int], device: torch.device | str) -> Tensor:
        """Unpacks the masks [B, H, W] of some targets on a device."""
        packed = to_device(
            torch.from_numpy(np.stack([self.targets[i].mask for i in chosen])), device
        )
        pixels = _eight_pixels(device)[packed.int()].view(torch.bool)  # [B, H, 8 ceil(W / 8)]
        return pixels[..., : self.camera.width]


@functools.cache
def _eight_pixels(device: torch.device | str) -> Tensor:  # [256]
    """The bits of every byte, as eight bytes that are looked up at once."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    return torch.from_numpy(bits.view(np.int64)[:, 0]).to(device)
