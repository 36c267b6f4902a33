"""Colour transforms of photos, whose exposure and white balance differ."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

RIDGE = 1e-3
"""Weight of the distance to the identity against the mean squared error of colours in 0..1. It
holds what the colours of a picture do not tell, as those of a gray table."""


def expose(
    image: Tensor,  # [3, H, W]
    exposure: Tensor,  # [3, 4]
) -> Tensor:  # [3, H, W]
    """Transforms each pixel's colour: ``exposure[:, :3] @ color + exposure[:, 3]``."""
    return torch.einsum("ij,jhw->ihw", exposure[:, :3], image) + exposure[:, 3, None, None]


@torch.no_grad()
def fit_exposure(
    rendering: Tensor,  # [3, H, W]
    photo: Tensor,  # [3, H, W]
) -> Tensor:  # [3, 4]
    """The transform of a rendering's colours to the photo's by ridge regression."""
    pixels = rendering.flatten(1)  # [3, P]
    pixels = torch.cat([pixels, torch.ones_like(pixels[:1])])
    missing = photo.flatten(1) - pixels[:3]
    count, size = pixels.shape[1], len(pixels)
    identity = torch.eye(size).to(pixels)
    gram = pixels @ pixels.T / count + RIDGE * identity
    return identity[:3] + torch.linalg.solve(gram, pixels @ missing.T / count).T


@dataclass
class Exposures:
    """The transforms of the training photos, each fitted again whenever its photo is rendered.

    Only differences between photos count: the transforms' mean is the identity, so that renderings
    without a transform look like the average photo.
    """

    values: Tensor
    """[V, 3, 4], of each photo as it was fitted last."""

    @classmethod
    def start(cls, count: int, device: torch.device | str) -> Exposures:
        """Makes transforms that change nothing."""
        return cls(torch.eye(3, 4, device=device).repeat(count, 1, 1))

    def fitted(self, index: int, rendering: Tensor, photo: Tensor) -> Exposures:
        """The transforms with that of one photo fitted again."""
        values = self.values.clone()
        values[index] = fit_exposure(rendering, photo)
        return Exposures(values)

    def __getitem__(self, index: int) -> Tensor:  # [3, 4]
        """Returns the transform of one photo."""
        identity = torch.eye(3, 4).to(self.values)
        return self.values[index] - self.values.mean(dim=0) + identity
