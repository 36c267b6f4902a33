"""Fits Gaussians to the photos of a scene: 3D Gaussian Splatting (Kerbl et al. 2023)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from refer3d.runs.device import to_device
from refer3d.runs.errors import InputError
from refer3d.runs.progress import Progress
from refer3d.runs.ranks import gathered, maximum_of, rank, share, sum_gradients, wait
from refersplat.config import Config, DataConfig, RgbConfig
from refersplat.data import Scene, View, load_ahead
from refersplat.rgb.corrections import begin_corrections
from refersplat.rgb.densify import (
    RESET_OPACITY,
    DensificationStatistics,
    densify,
    gaussian_limit,
    is_densified,
)
from refersplat.rgb.exposure import expose
from refersplat.rgb.fit import evaluate_rgb, protocol
from refersplat.rgb.losses import photo_loss, psnr
from refersplat.rgb.optimizer import learning_rates, pose_rate
from refersplat.rgb.poses import moved, save_poses, with_refined_poses
from refersplat.rgb.state import STATE_FILE, RgbState, save_inria_checkpoint
from refersplat.splats.checkpoints import save_viewer_files
from refersplat.splats.gaussians import Gaussians, save_ply
from refersplat.splats.render import Rendering, render

log = logging.getLogger(__name__)

SH_DEGREE_EVERY = 1_000
REPORT_EVERY = 50


def train(config: Config, scene: Scene, device: torch.device | str = "cpu") -> Gaussians:
    """Fits Gaussians to the training views.

    Writes ``rgb_state.pt`` at intervals; at the end Inria's checkpoint, the viewers' files and last
    the point cloud, which marks the stage as complete. With ``config.resume`` a stopped run
    continues to the same result. Of several processes, each renders its share of a step's views,
    and the first one writes.
    """
    rgb, out = config.rgb, Path(config.model_path)
    path = out / STATE_FILE
    if config.resume and path.exists():
        state = RgbState.load(path, scene.train, scene.extent, device)
        log.info("resuming at iteration %d of %s", state.iteration, path)
    else:
        state = RgbState.start(config, scene, device)

    limit = gaussian_limit(rgb, [view.camera for view in scene.train])
    count, places = rgb.views_per_step, share(range(rgb.views_per_step))
    order = view_order(scene.train, config.seed, count * state.iteration, count * rgb.iterations)
    own = (view for place, view in enumerate(order) if place % count in places)
    loaded = load_ahead(own, device)
    with Progress("rgb", rgb.iterations, state.iteration, events=out) as progress:
        while photos := list(islice(loaded, len(places))):
            rendering, loss = step(state, photos, rgb, scene.extent, limit)
            progress.advance()
            if state.iteration == rgb.correct_from:
                begin_corrections(state, rgb, scene, sh_degree(state.iteration, rgb))
            if state.iteration % REPORT_EVERY == 0:
                quality = psnr(rendering.color.detach(), photos[-1][1])
                number = state.adam.gaussians.count
                progress.report(
                    state.iteration, loss=float(loss), psnr=float(quality), count=number
                )
            is_due = state.iteration % rgb.checkpoint_every == 0
            if (is_due or state.iteration == rgb.iterations) and not rank():
                state.save(path, scene.train, scene.extent)
        gaussians = state.adam.gaussians.detached()
        if scene.test and not rank():
            extent = None if state.motions is None else scene.extent
            quality = evaluate_rgb(gaussians, scene.test, extent)
            log.info("test views: PSNR %(psnr).2f dB, SSIM %(ssim).4f, L1 %(l1).4f", quality)
            log.info("PSNR %.2f dB: %s", quality["psnr_fitted"], protocol(extent))
            scores = {f"test_{name}": value for name, value in quality.items()}
            progress.report(state.iteration, "rgb", **scores)

    if not rank():
        save_all(config, scene, state)
    wait()
    return gaussians


def save_all(config: Config, scene: Scene, state: RgbState) -> None:
    """Writes the results of the stage."""
    rgb, out = config.rgb, Path(config.model_path)
    if state.motions is not None:
        save_poses(out, scene.train, state.motions, scene.extent)
        scene = with_refined_poses(scene, out)
    save_inria_checkpoint(
        out / f"chkpnt{state.iteration}.pth",
        state,
        learning_rates(rgb, scene.extent, state.iteration),
        sh_degree(state.iteration, rgb),
        scene.extent,
    )
    gaussians = state.adam.gaussians.detached()
    save_scene(out, gaussians, state.iteration, config.data, scene.views)


def save_scene(
    folder: Path, gaussians: Gaussians, iteration: int, data: DataConfig, views: Sequence[View]
) -> None:
    """Writes the viewers' files, then the point cloud."""
    save_viewer_files(folder, views, data)
    save_ply(gaussians, folder / "point_cloud" / f"iteration_{iteration}" / "point_cloud.ply")


class Correction(NamedTuple):
    """What one photo tells about its own exposure and pose, on the CPU."""

    row: int
    exposure: Tensor | None
    """[3, 4], see :class:`Exposures`."""
    gradient: Tensor | None
    """[6] gradient of the loss by the camera's motion."""


def step(
    state: RgbState,
    photos: Sequence[tuple[View, Tensor]],
    config: RgbConfig,
    extent: float,
    limit: float,
) -> tuple[Rendering, Tensor]:
    """Runs one iteration: renders views, optimises the Gaussians, densifies them where due.

    Corrects exposure and pose of the photos, too, where the state has such corrections.

    Args:
        state: Changed in place, by all processes alike.
        photos: This process's share of the step's views, with their pictures [3, H, W].
        config: Learning rates and thresholds.
        extent: Size of the scene.
        limit: Largest number of Gaussians.

    Returns:
        The rendering of the last view, and its loss before the update.

    Raises:
        InputError: Densification has removed every Gaussian.
    """
    state.iteration += 1
    iteration, adam = state.iteration, state.adam
    is_densifying = iteration < config.densify_until * config.iterations
    observed = DensificationStatistics.start(adam.gaussians)
    corrections = []
    backgrounds = share(draw_backgrounds(config, state.generator))
    for (view, image), background in zip(photos, backgrounds, strict=True):
        rendering, loss, correction = add_gradients(state, view, image, background, config, extent)
        corrections.append(correction)
        if is_densifying:  # by the view's own gradients, however many views a step has
            observed.observe(rendering, view.camera)

    parameters = adam.gaussians.tensors().values()
    sum_gradients(parameters, observed.gradient, observed.views)
    for parameter in parameters if config.views_per_step > 1 else ():
        if parameter.grad is not None:
            parameter.grad /= config.views_per_step
    if is_densifying:
        observed.max_radii = maximum_of(observed.max_radii)
        state.statistics.add(observed)
    if state.exposures is not None or state.motions is not None:
        correct(state, gathered(corrections), pose_rate(config, iteration))
    adam.step(learning_rates(config, extent, iteration))
    if is_densified(iteration, config):
        prune_large = iteration > config.opacity_reset_every
        state.statistics = densify(
            adam, state.statistics, config, extent, limit, prune_large, state.generator
        )
        if not adam.gaussians.count:
            raise InputError(
                f"no Gaussian is left at iteration {iteration}; check that the poses belong to the "
                "photos, or raise --rgb.opacity_reset_every"
            )
    # On white, floaters before the objects are invisible from the first steps on.
    is_early = iteration == config.densify_from and photos[0][0].background == 1
    if is_densifying and (iteration % config.opacity_reset_every == 0 or is_early):
        adam.limit_opacities(RESET_OPACITY)
    return rendering, loss


def add_gradients(
    state: RgbState,
    view: View,
    image: Tensor,  # [3, H, W]
    drawn: Tensor | None,  # [3]
    config: RgbConfig,
    extent: float,
) -> tuple[Rendering, Tensor, Correction]:
    """Renders a view and adds the gradients of its loss to those of the Gaussians.

    Returns:
        The rendering, the loss, and what corrects the photo.
    """
    background, target = choose_background(view, image, drawn)
    camera, row, motion, exposures = view.camera, state.rows[view.name], None, None
    if state.motions is not None:
        motion = state.motions.leaf(row)
        camera = moved(camera.to(motion.device), motion, extent)
    degree = sh_degree(state.iteration, config)
    rendering = render(state.adam.gaussians, camera, background=background, sh_degree=degree)
    if state.exposures is not None:
        exposures = state.exposures.fitted(row, rendering.color.detach(), target)
        rendering = rendering._replace(color=expose(rendering.color, exposures[row]))
    loss = photo_loss(rendering.color, target, config.lambda_dssim)
    loss.backward()
    found = (exposures and exposures.values[row], motion is not None and motion.grad)
    correction = Correction(row, *(one.cpu() if isinstance(one, Tensor) else None for one in found))
    return rendering, loss.detach(), correction


def correct(state: RgbState, corrections: Sequence[Correction], rate: float) -> None:
    """Takes the exposures that were fitted, and moves the cameras against their gradients."""
    for row, exposure, gradient in corrections:
        if state.exposures is not None and exposure is not None:
            state.exposures.values[row] = exposure.to(state.exposures.values)
        if state.motions is not None and gradient is not None:
            state.motions.step(row, gradient.to(state.motions.values), rate)


def draw_backgrounds(config: RgbConfig, generator: torch.Generator) -> list[Tensor | None]:
    """Draws a background colour [3] for each view of a step; None leaves the photo's own."""
    is_random = config.random_background
    return [
        torch.rand(3, generator=generator) if is_random else None
        for _ in range(config.views_per_step)
    ]


def choose_background(
    view: View,
    image: Tensor,  # [3, H, W]
    drawn: Tensor | None,  # [3]
) -> tuple[Tensor, Tensor]:  # [3], [3, H, W]
    """Chooses the background colour that was drawn, if one was, and composes the photo on it."""
    plain = image.new_full((3,), view.background)
    if drawn is None:
        return plain, image
    background = to_device(drawn, image.device)
    alpha = view.alpha()
    if alpha is not None:
        image = image + (1 - to_device(alpha, image.device)) * (background - plain)[:, None, None]
    return background, image


def sh_degree(iteration: int, config: RgbConfig) -> int:
    """The active degree of spherical harmonics: one more every ``SH_DEGREE_EVERY`` steps."""
    return min(config.sh_degree, iteration // SH_DEGREE_EVERY)


def view_order(views: Sequence[View], seed: int, start: int, end: int) -> Iterator[View]:
    """The views of iterations ``start`` to ``end``: every epoch shows each view once, shuffled.

    The order depends on ``seed`` alone, so a resumed run continues it.
    """
    for epoch in range(start // len(views), -(-end // len(views))):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(len(views), generator=generator).tolist()
        first = epoch * len(views)
        yield from (views[i] for i in order[max(start - first, 0) : end - first])
