"""Exposure and pose of single photos, fitted to Gaussians that stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from refersplat.cameras import Camera
from refersplat.data import View, load_ahead
from refersplat.rgb.exposure import expose, fit_exposure
from refersplat.rgb.losses import l1, psnr, ssim
from refersplat.rgb.poses import moved
from refersplat.splats.gaussians import Gaussians
from refersplat.splats.render import render

POSE_STEPS = 30
POSE_RATE = 1e-3
"""Radians, and units of the scene's extent, of the first step; it falls to zero."""


class Fit(NamedTuple):
    """Renderings of a photo's right half, with what was fitted to its left half."""

    photo: Tensor
    """[3, H, W / 2]."""
    plain: Tensor
    """[3, H, W / 2], before the exposure."""
    exposure: Tensor
    """[3, 4]."""

    @property
    def color(self) -> Tensor:  # [3, H, W / 2]
        """The rendering with its exposure, in 0..1."""
        return expose(self.plain, self.exposure).clamp(0, 1)


def fit_left_half(
    gaussians: Gaussians,
    view: View,
    photo: Tensor,  # [3, H, W]
    extent: float | None = None,
    sh_degree: int = 3,
) -> Fit:
    """Fits exposure and pose to the left half of a photo (Martin-Brualla et al. 2021, NeRF-W).

    Args:
        gaussians: The scene.
        view: The photo's view; its pose is where the fit begins.
        photo: Its picture.
        extent: Size of the scene; None leaves the pose as it is.
        sh_degree: Active degree of spherical harmonics.
    """
    half = view.camera.width // 2
    target, right = (part.contiguous() for part in (photo[..., :half], photo[..., half:]))
    background = photo.new_full((3,), view.background)
    gaussians = gaussians.detached()

    def color(motion: Tensor, camera: Camera) -> Tensor:
        camera = camera if extent is None else moved(camera, motion, extent)
        return render(gaussians, camera, background=background, sh_degree=sh_degree).color

    motion = photo.new_zeros(6)
    if extent is not None:
        left = replace(view.camera, width=half)
        motion.requires_grad_()
        optimizer = torch.optim.Adam([motion])
        for step in range(POSE_STEPS):
            optimizer.param_groups[0]["lr"] = POSE_RATE * (1 - step / POSE_STEPS)
            image = color(motion, left)
            optimizer.zero_grad()
            l1(expose(image, fit_exposure(image.detach(), target)), target).backward()
            optimizer.step()
    with torch.no_grad():
        image = color(motion, view.camera)
        return Fit(right, image[..., half:], fit_exposure(image[..., :half], target))


def evaluate_rgb(
    gaussians: Gaussians, views: Sequence[View], extent: float | None = None
) -> dict[str, float]:
    """Mean PSNR (dB), SSIM and L1 over the views; empty without views.

    ``psnr_fitted`` and the like score the right half of each photo, with the exposure and, where
    the scene's extent is given, the pose that :func:`fit_left_half` finds.
    """
    totals = torch.zeros(6, dtype=torch.float64)
    for view, photo in load_ahead(views, gaussians.means.device):
        background = photo.new_full((3,), view.background)
        with torch.no_grad():
            color = render(gaussians, view.camera, background=background).color.clamp(0, 1)
        fit = fit_left_half(gaussians, view, photo, extent)
        pairs = ((color, photo), (fit.color, fit.photo))
        totals += torch.stack([score(*p) for p in pairs for score in (psnr, ssim, l1)]).cpu()
    names = ("psnr", "ssim", "l1", "psnr_fitted", "ssim_fitted", "l1_fitted")
    return dict(zip(names, (totals / len(views)).tolist(), strict=True)) if views else {}


def protocol(extent: float | None) -> str:
    """Says what ``psnr_fitted`` of :func:`evaluate_rgb` is."""
    fitted = "exposure" if extent is None else "exposure and pose"
    return f"{fitted} fitted to the left half of each test view, scored on the right half"
