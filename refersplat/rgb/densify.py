"""Adaptive density control: clones, splits and prunes Gaussians (Kerbl et al. 2023, section 5)."""

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
"""Gaussians below this opacity are removed."""
MAX_EXTENT = 0.1
"""After the first opacity reset, Gaussians above this share of the scene's extent are removed."""
RESET_OPACITY = 0.01
SPLIT_INTO = 2
SPLIT_SHRINK = 0.8 * SPLIT_INTO
"""The parts of a split Gaussian are this many times smaller."""


@dataclass
class DensificationStatistics:
    """View-space gradients and radii of each Gaussian since the last densification."""

    gradient: Tensor
    """[N] sum over views of the norm of dLoss/dmeans2d, in normalised device coordinates."""
    views: Tensor
    """[N] number of views that saw the Gaussian."""
    max_radii: Tensor
    """[N] largest extent on an image, in pixels."""

    @classmethod
    def start(cls, gaussians: Gaussians) -> DensificationStatistics:
        """Makes statistics of no views."""
        return cls(*(gaussians.means.detach().new_zeros(3, gaussians.count).unbind(dim=0)))

    @torch.no_grad()
    def observe(self, rendering: Rendering, camera: Camera) -> None:
        """Adds one view, after the backward pass has reached ``rendering.means2d``."""
        gradient = rendering.means2d.grad
        assert gradient is not None, "observe() comes after backward()"
        is_visible = rendering.radii > 0
        x, y = gradient.unbind(dim=1)
        self.gradient += torch.hypot(x * (camera.width / 2), y * (camera.height / 2)) * is_visible
        self.views += is_visible
        self.max_radii = torch.maximum(self.max_radii, rendering.radii.to(self.max_radii.dtype))

    @torch.no_grad()
    def add(self, other: DensificationStatistics) -> None:
        """Adds the views of others."""
        self.gradient += other.gradient
        self.views += other.views
        self.max_radii = torch.maximum(self.max_radii, other.max_radii)

    def mean_gradient(self) -> Tensor:
        """[N] average over the views that saw the Gaussian, 0 where none did."""
        return self.gradient / self.views.clamp(min=1)


def is_densified(iteration: int, config: RgbConfig) -> bool:
    """Whether densification follows this iteration."""
    return (
        config.densify_from < iteration < config.densify_until * config.iterations
        and iteration % config.densify_every == 0
    )


def gaussian_limit(config: RgbConfig, cameras: Iterable[Camera]) -> float:
    """The largest number of Gaussians: by default one for each pixel of the largest photo."""
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
    """Clones small and splits large Gaussians of large gradients, and removes faint ones.

    Size on the image removes none: the published code clears the radii before it compares them.

    Args:
        adam: Holds the Gaussians; changed in place.
        statistics: Observations since the last densification.
        config: Thresholds.
        extent: Size of the scene.
        limit: Largest number of Gaussians; where room is short, the largest gradients win.
        prune_large: Also remove Gaussians above ``MAX_EXTENT``.
        generator: Source of the places of split Gaussians.

    Returns:
        Fresh statistics for the new Gaussians.
    """
    gaussians = adam.gaussians.detached()
    chosen = statistics.mean_gradient() >= config.densify_gradient
    is_large = gaussians.scales.amax(dim=1) > config.percent_dense * extent
    room = max(limit - gaussians.count, 0)
    if chosen.sum() > room:
        order = statistics.mean_gradient().argsort(dim=0, descending=True, stable=True)
        chosen[order[int(room) :]] = False

    clones = gaussians.select(chosen & ~is_large)
    parts = split(gaussians.select(chosen & is_large), generator)
    adam.keep(~(chosen & is_large))
    adam.append(clones)
    adam.append(parts)

    gaussians = adam.gaussians.detached()
    is_pruned = gaussians.opacities < MIN_OPACITY
    if prune_large:
        is_pruned |= gaussians.scales.amax(dim=1) > MAX_EXTENT * extent
    adam.keep(~is_pruned)
    return DensificationStatistics.start(adam.gaussians)


def split(gaussians: Gaussians, generator: torch.Generator) -> Gaussians:
    """``SPLIT_INTO`` smaller Gaussians for each, at places drawn from its distribution."""
    parts = gaussians.map(lambda tensor: tensor.repeat(SPLIT_INTO, *[1] * (tensor.dim() - 1)))
    offsets = torch.randn(parts.means.shape, generator=generator).to(parts.means) * parts.scales
    parts.means = parts.means + (parts.rotations @ offsets[:, :, None])[:, :, 0]
    parts.log_scales = parts.log_scales - math.log(SPLIT_SHRINK)
    return parts
