"""Renders Gaussians from a camera."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from refersplat.cameras import Camera
from refersplat.ops import BlendMatrix, blend_matrix, project, rasterize, spherical_harmonics
from refersplat.splats.gaussians import Gaussians


class Rendering(NamedTuple):
    """What a camera sees."""

    color: Tensor
    """[3, H, W], the background included."""
    features: Tensor | None
    """[C, H, W], where features were given; no background is added."""
    transmittance: Tensor
    """[H, W], what is left of the light from behind the last Gaussian."""
    radii: Tensor
    """[N] int32, extent on the image in pixels, 0 where culled."""
    means2d: Tensor
    """[N, 2] centres in pixels; its ``grad`` is kept, since densification reads it."""


def render(
    gaussians: Gaussians,
    camera: Camera,
    *,
    background: Tensor | None = None,  # [3]
    features: Tensor | None = None,  # [N, C]
    sh_degree: int | None = None,
) -> Rendering:
    """Renders colour, and ``features`` with it, in one pass.

    Differentiable in all tensors of the Gaussians and in ``features``.

    Args:
        gaussians: What is rendered.
        camera: From where; on the device of the Gaussians.
        background: Colour behind everything; black where it is not given.
        features: Values of any width to composite with the same weights.
        sh_degree: Degree of the colour's dependence on direction; all there is if not given.
    """
    camera = camera.to(gaussians.means.device)
    projected = project(gaussians.means, gaussians.quats, gaussians.scales, camera)
    if projected.means2d.requires_grad:
        projected.means2d.retain_grad()
    colors = spherical_harmonics(
        gaussians.means, gaussians.sh, camera.position, 3 if sh_degree is None else sh_degree
    )
    values = colors if features is None else torch.cat([colors, features], dim=1)
    image, transmittance = rasterize(
        projected.means2d,
        projected.conics,
        projected.depths,
        gaussians.opacities,
        values,
        camera.height,
        camera.width,
    )
    color = image[:3]
    if background is not None:
        color = color + transmittance * background[:, None, None]
    return Rendering(
        color=color,
        features=None if features is None else image[3:],
        transmittance=transmittance,
        radii=projected.radii,
        means2d=projected.means2d,
    )


@torch.no_grad()
def frozen_blend(
    gaussians: Gaussians,
    camera: Camera,
    selected: Tensor | None = None,  # [N] bool
) -> BlendMatrix:
    """The view's blend weights as a sparse matrix, for Gaussians whose geometry stays as it is.

    ``selected`` leaves the others out, as if they were not there; the matrix then has one column
    per selected Gaussian.
    """
    if selected is not None:
        gaussians = gaussians.select(selected)
    camera = camera.to(gaussians.means.device)
    projected = project(gaussians.means, gaussians.quats, gaussians.scales, camera)
    return blend_matrix(
        projected.means2d,
        projected.conics,
        projected.depths,
        gaussians.opacities,
        camera.height,
        camera.width,
    )
