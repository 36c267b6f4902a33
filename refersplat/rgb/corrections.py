"""Decides whether to correct the training photos' exposures and poses, and begins with it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from refer3d.runs.ranks import gathered
from refersplat.config import RgbConfig
from refersplat.data import Scene, View, load_ahead
from refersplat.rgb.exposure import Exposures, fit_exposure
from refersplat.rgb.fit import Fit, fit_left_half
from refersplat.rgb.losses import psnr
from refersplat.rgb.poses import Motions
from refersplat.rgb.state import RgbState
from refersplat.splats.gaussians import Gaussians
from refersplat.splats.render import render

log = logging.getLogger(__name__)

PROBED = 8
"""Most training photos that ``auto`` looks at."""
MIN_GAIN = 0.2
"""dB on right halves above which ``auto`` corrects. Photos that are alike gain at most 0.07 after
500 steps, and 0.14 after 40; disturbed ones 0.6 and more (benchmarks/README.md)."""


def begin_corrections(state: RgbState, config: RgbConfig, scene: Scene, sh_degree: int) -> None:
    """Starts the corrections that the options ask for, or the photos."""
    gaussians, count = state.adam.gaussians.detached(), len(scene.train)
    device = gaussians.means.device
    options = {"exposure": config.exposure, "pose": config.refine_poses}
    gains = dict.fromkeys(options, 0.0)
    if "auto" in options.values():
        probed = scene.train[:: -(-count // PROBED)]
        extent = scene.extent if options["pose"] == "auto" else None
        (gains, *_) = gathered([measure_gains(gaussians, probed, extent, sh_degree)])  # one decides
    chosen = {}
    for name, option in options.items():
        chosen[name] = option == "always" or (option == "auto" and gains[name] > MIN_GAIN)
        if option == "auto":
            verb = "is" if chosen[name] else "is not"
            gain = f"{gains[name]:+.2f} dB on the halves of photos that it was not fitted to"
            log.info("the photos' %s %s corrected: %s", name, verb, gain)
    if chosen["exposure"]:
        state.exposures = Exposures.start(count, device)
        fit_all(state.exposures, gaussians, scene.train, sh_degree)
    if chosen["pose"]:
        state.motions = Motions.start(count, device)


def measure_gains(
    gaussians: Gaussians, views: Sequence[View], extent: float | None, sh_degree: int
) -> dict[str, float]:
    """Measures what corrections that fit left halves of photos gain on right halves, in dB.

    Without an extent, poses gain 0.

    A photo's own exposure is compared with the mean one: colours that the young Gaussians lack in
    all photos alike are no difference between photos.
    """
    fits, gains = [], []
    for view, photo in load_ahead(views, gaussians.means.device):
        fits.append(fit_left_half(gaussians, view, photo, sh_degree=sh_degree))
        if extent is not None:
            posed = fit_left_half(gaussians, view, photo, extent, sh_degree)
            gains.append(_psnr(posed) - _psnr(fits[-1]))
    mean = torch.stack([fit.exposure for fit in fits]).mean(dim=0)
    own = [_psnr(fit) - _psnr(fit._replace(exposure=mean)) for fit in fits]
    return {
        "exposure": float(torch.stack(own).mean()),
        "pose": float(torch.stack(gains).mean()) if gains else 0.0,
    }


def _psnr(fit: Fit) -> Tensor:
    return psnr(fit.color, fit.photo)


@torch.no_grad()
def fit_all(
    exposures: Exposures, gaussians: Gaussians, views: Sequence[View], sh_degree: int
) -> None:
    """Fits the exposures of all photos."""
    for row, (view, photo) in enumerate(load_ahead(views, gaussians.means.device)):
        background = photo.new_full((3,), view.background)
        color = render(gaussians, view.camera, background=background, sh_degree=sh_degree).color
        exposures.values[row] = fit_exposure(color, photo)
