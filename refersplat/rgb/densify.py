"""Adaptive density control: more Gaussians where the image asks for them, fewer where unseen."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from refersplat.cameras import Camera
from refersplat.config import RgbConfig
from refersplat.rgb.optimizer import Adam
from refersplat.splats.gaussians import Gaussians
from refersplat.splats.render import Rendering

MIN_OPACITY = 0.005
"""What is fainter than this is removed."""
MAX_EXTENT = 0.1
"""Once opacities have been reset, what is larger than this share of the scene is removed."""
RESET_OPACITY = 0.01
SPLIT_INTO = 2
SPLIT_SHRINK = 0.8 * SPLIT_INTO
"""A Gaussian that is split leaves ``SPLIT_INTO`` that are this many times smaller."""


@dataclass
class DensificationStatistics:
    """How much the image pulled at each Gaussian since the last densification."""

    gradient: Tensor
    """[N] sum over views of the length of dLoss/dmean on the image, in units of half its size."""
    views: Tensor
    """[N] in how many views the Gaussian was seen."""
    max_radii: Tensor
    """[N] largest extent on an image, in pixels."""

    @classmethod
    def start(cls, gaussians: Gaussians) -> DensificationStatistics:
        """Nothing seen yet."""
        return cls(*(gaussians.means.detach().new_zeros(3, gaussians.count).unbind(dim=0)))

    @torch.no_grad()
    def observe(self, rendering: Rendering, camera: Camera) -> None:
        """Adds one view, after the loss was propagated back to ``rendering.means2d``."""
        seen = rendering.radii > 0
        x, y = rendering.means2d.grad.unbind(dim=1)
        slope = torch.hypot(x * (camera.width / 2), y * (camera.height / 2))
        self.gradient += slope * seen
        self.views += seen
        self.max_radii = torch.maximum(self.max_radii, rendering.radii.to(self.max_radii.dtype))

    def mean_gradient(self) -> Tensor:
        """[N] average over the views that saw the Gaussian, 0 where none did."""
        return self.gradient / self.views.clamp(min=1)


def needs_density(iteration: int, config: RgbConfig) -> bool:
    """Whether Gaussians are added and removed after this iteration."""
    return (
        config.densify_from < iteration < config.densify_until * config.iterations
        and iteration % config.densify_every == 0
    )


def gaussian_limit(config: RgbConfig, cameras: Iterable[Camera]) -> float:
    """How many Gaussians there may be, given the size of the largest photo."""
    if config.max_gaussians < 0:
        return max(camera.width * camera.height for camera in cameras)
    return config.max_gaussians or math.inf


@torch.no_grad()
def densify(
    adam: Adam,
    statistics: DensificationStatistics,
    config: RgbConfig,
    extent: float,
    limit: float,
    prune_large: bool,
    generator: torch.Generator,
) -> DensificationStatistics:
    """Clones small and splits large Gaussians that are pulled at, and removes useless ones.

    There is no limit to a Gaussian's size on the image: the published code clears the radii before
    it compares them, so none was ever removed for that.

    Args:
        adam: Holds the Gaussians; changed in place.
        statistics: What was observed since the last time.
        config: Thresholds.
        extent: Size of the scene.
        limit: How many Gaussians there may be; where room is short, the strongest pull wins.
        prune_large: Whether Gaussians that are large in the world are removed, too.
        generator: Where the places of split Gaussians are drawn from.

    Returns:
        Fresh statistics for the Gaussians there are now.
    """
    gaussians = adam.gaussians.detached()
    wanted = statistics.mean_gradient() >= config.densify_gradient
    large = gaussians.scales.amax(dim=1) > config.percent_dense * extent
    room = max(limit - gaussians.count, 0)
    if wanted.sum() > room:
        order = statistics.mean_gradient().argsort(dim=0, descending=True, stable=True)
        wanted[order[int(room) :]] = False

    clones = gaussians.select(wanted & ~large)
    parts = split(gaussians.select(wanted & large), generator)
    adam.keep(~(wanted & large))
    adam.append(clones)
    adam.append(parts)

    gaussians = adam.gaussians.detached()
    useless = gaussians.opacities < MIN_OPACITY
    if prune_large:
        useless |= gaussians.scales.amax(dim=1) > MAX_EXTENT * extent
    adam.keep(~useless)
    return DensificationStatistics.start(adam.gaussians)


def split(gaussians: Gaussians, generator: torch.Generator) -> Gaussians:
    """``SPLIT_INTO`` smaller Gaussians for each, at places drawn from it."""
    parts = gaussians.map(lambda tensor: tensor.repeat(SPLIT_INTO, *[1] * (tensor.dim() - 1)))
    offsets = torch.randn(parts.means.shape, generator=generator).to(parts.means) * parts.scales
    parts.means = parts.means + (parts.rotations @ offsets[:, :, None])[:, :, 0]
    parts.log_scales = parts.log_scales - math.log(SPLIT_SHRINK)
    return parts
