"""Renders Gaussians from a camera."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from refersplat.cameras import Camera
from refersplat.ops import (
    BlendMatrix,
    Projected,
    blend_matrix,
    project,
    rasterize,
    spherical_harmonics,
)
from refersplat.splats.gaussians import Gaussians


class Rendering(NamedTuple):
    """The images of one camera."""

    color: Tensor
    """[3, H, W] in 0..1, background included."""
    features: Tensor | None
    """[C, H, W] if features were given; no background is added."""
    transmittance: Tensor
    """[H, W], share of the background's light that arrives."""
    radii: Tensor
    """[N] int32, extent on the image in pixels, 0 if culled."""
    means2d: Tensor
    """[N, 2] centres in pixels; their ``grad`` is retained for densification."""


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
        gaussians: The N Gaussians.
        camera: The camera; moved to the device of the Gaussians.
        background: Colour behind everything; black by default.
        features: Values of any width C, composited with the same weights.
        sh_degree: Active degree of spherical harmonics; 3 by default.
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
        *(projected.means2d, projected.conics, projected.depths, gaussians.opacities, values),
        *(camera.height, camera.width),
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
    """The view's blend weights as a sparse matrix, for Gaussians of fixed geometry.

    With ``selected`` the other Gaussians are absent; the matrix has one column per selected one.
    """
    chosen = gaussians if selected is None else gaussians.select(selected)
    return project_and_blend(chosen, camera)[1]


def project_and_blend(gaussians: Gaussians, camera: Camera) -> tuple[Projected, BlendMatrix]:
    """The Gaussians on the image, and their blend weights."""
    camera = camera.to(gaussians.means.device)
    projected = project(gaussians.means, gaussians.quats, gaussians.scales, camera)
    blend = blend_matrix(
        *(projected.means2d, projected.conics, projected.depths, gaussians.opacities),
        *(camera.height, camera.width),
    )
    return projected, blend
