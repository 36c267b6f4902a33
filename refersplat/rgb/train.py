"""Fits Gaussians to the photos of a scene: 3D Gaussian Splatting (Kerbl et al. 2023)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from refer3d.runs.device import to_device
from refer3d.runs.errors import InputError
from refer3d.runs.progress import Progress
from refer3d.runs.states import load_state, save_state
from refersplat.config import Config, DataConfig, RgbConfig
from refersplat.data import Scene, View, load_ahead
from refersplat.rgb.densify import (
    RESET_OPACITY,
    DensificationStatistics,
    densify,
    gaussian_limit,
    needs_density,
)
from refersplat.rgb.initialize import starting_gaussians
from refersplat.rgb.losses import l1, photo_loss, psnr, ssim
from refersplat.rgb.optimizer import Adam, learning_rates
from refersplat.splats.checkpoints import (
    RGB_FORMAT,
    save_inria_checkpoint,
    save_viewer_files,
)
from refersplat.splats.gaussians import Gaussians, save_ply
from refersplat.splats.render import Rendering, render

log = logging.getLogger(__name__)

SH_DEGREE_EVERY = 1_000
REPORT_EVERY = 50
STATE_FILE = "rgb_state.pt"


@dataclass
class RgbState:
    """Everything that the rest of the training depends on."""

    adam: Adam
    statistics: DensificationStatistics
    generator: torch.Generator
    iteration: int = 0

    @classmethod
    def start(cls, config: Config, scene: Scene, device: torch.device | str) -> RgbState:
        """Before the first step."""
        generator = torch.Generator().manual_seed(config.seed)
        gaussians = starting_gaussians(scene, config.rgb, generator).to(device)
        return cls(Adam.start(gaussians), DensificationStatistics.start(gaussians), generator)

    def save(self, path: Path, views: Sequence[View], extent: float) -> None:
        """Writes the state so that :meth:`load` goes on to the same numbers."""
        adam, statistics = self.adam, self.statistics
        state = {
            "format": RGB_FORMAT,
            "iteration": self.iteration,
            "gaussians": adam.gaussians.detached().tensors(),
            "first": adam.first.tensors(),
            "second": adam.second.tensors(),
            "steps": adam.steps,
            "statistics": vars(statistics),
            "generator": self.generator.get_state(),
            "views": [view.name for view in views],
            "extent": extent,
        }
        save_state(path, state)

    @classmethod
    def load(
        cls, path: Path, views: Sequence[View], extent: float, device: torch.device | str
    ) -> RgbState:
        """Reads what :meth:`save` wrote, if it was saved for these views.

        Raises:
            InputError: If the file is broken or belongs to another scene.
        """
        state = load_state(path, RGB_FORMAT)
        if state["views"] != [view.name for view in views] or state["extent"] != extent:
            raise InputError(
                f"{path}: was saved with {len(state['views'])} training views of another scene or "
                f"split, now there are {len(views)}; use the same -s and --eval, or another -m"
            )
        gaussians, first, second = (
            Gaussians(**state[name]).to(device) for name in ("gaussians", "first", "second")
        )
        adam = Adam.start(gaussians)
        adam.first, adam.second, adam.steps = first, second, state["steps"]
        statistics = DensificationStatistics(
            **{name: tensor.to(device) for name, tensor in state["statistics"].items()}
        )
        generator = torch.Generator()
        generator.set_state(state["generator"])
        return cls(adam, statistics, generator, state["iteration"])


def train(config: Config, scene: Scene, device: torch.device | str = "cpu") -> Gaussians:
    """Fits Gaussians to the training views.

    Writes ``rgb_state.pt`` as it goes; at the end Inria's checkpoint, the files that viewers want
    and, last, the point cloud, which says that the stage is over. With ``config.resume`` a stopped
    run goes on to the same result.
    """
    rgb, out = config.rgb, Path(config.model_path)
    path = out / STATE_FILE
    if config.resume and path.exists():
        state = RgbState.load(path, scene.train, scene.extent, device)
        log.info("going on from iteration %d of %s", state.iteration, path)
    else:
        state = RgbState.start(config, scene, device)

    limit = gaussian_limit(rgb, [view.camera for view in scene.train])
    order = view_order(scene.train, config.seed, state.iteration, rgb.iterations)
    with Progress("rgb", rgb.iterations, state.iteration, events=out) as progress:
        for view, image in load_ahead(order, device):
            rendering, loss = step(state, view, image, rgb, scene.extent, limit)
            progress.advance()
            if state.iteration % REPORT_EVERY == 0:
                quality = psnr(rendering.color.detach(), image)
                count = state.adam.gaussians.count
                progress.report(state.iteration, loss=float(loss), psnr=float(quality), count=count)
            if state.iteration % rgb.checkpoint_every == 0 or state.iteration == rgb.iterations:
                state.save(path, scene.train, scene.extent)
        gaussians = state.adam.gaussians.detached()
        if scene.test:
            quality = evaluate_rgb(gaussians, scene.test)
            log.info("test views: PSNR %(psnr).2f dB, SSIM %(ssim).4f, L1 %(l1).4f", quality)
            progress.report(state.iteration, **{f"test_{n}": value for n, value in quality.items()})

    save_inria_checkpoint(
        out / f"chkpnt{state.iteration}.pth",
        state.adam,
        state.statistics,
        learning_rates(rgb, scene.extent, state.iteration),
        sh_degree(state.iteration, rgb),
        scene.extent,
        state.iteration,
    )
    save_scene(out, gaussians, state.iteration, config.data, scene.views)
    return gaussians


def save_scene(
    folder: Path, gaussians: Gaussians, iteration: int, data: DataConfig, views: Sequence[View]
) -> None:
    """Writes what viewers want beside the point cloud, then the cloud."""
    save_viewer_files(folder, views, data)
    save_ply(gaussians, folder / "point_cloud" / f"iteration_{iteration}" / "point_cloud.ply")


def step(
    state: RgbState,
    view: View,
    image: Tensor,  # [3, H, W]
    config: RgbConfig,
    extent: float,
    limit: float,
) -> tuple[Rendering, Tensor]:
    """One iteration: renders a view, moves the Gaussians toward its photo, adapts their number.

    Args:
        state: Changed in place.
        view: What is looked at.
        image: Its photo.
        config: Learning rates and thresholds.
        extent: Size of the scene.
        limit: How many Gaussians there may be.

    Returns:
        The rendering and the loss, both from before the Gaussians moved.
    """
    state.iteration += 1
    iteration, adam = state.iteration, state.adam
    background, target = choose_background(view, image, config, state.generator)
    rendering = render(
        adam.gaussians, view.camera, background=background, sh_degree=sh_degree(iteration, config)
    )
    loss = photo_loss(rendering.color, target, config.lambda_dssim)
    loss.backward()

    densifying = iteration < config.densify_until * config.iterations
    if densifying:
        state.statistics.observe(rendering, view.camera)
    adam.step(learning_rates(config, extent, iteration))
    if needs_density(iteration, config):
        prune_large = iteration > config.opacity_reset_every
        state.statistics = densify(
            adam, state.statistics, config, extent, limit, prune_large, state.generator
        )
        if not adam.gaussians.count:
            raise InputError(
                f"no Gaussian is left at iteration {iteration}: no two photos agree; check "
                "that the poses belong to the photos, or raise --rgb.opacity_reset_every"
            )
    # On white, what floats before the objects hides in it from the first steps on.
    is_early = iteration == config.densify_from and view.background == 1
    if densifying and (iteration % config.opacity_reset_every == 0 or is_early):
        adam.limit_opacities(RESET_OPACITY)
    return rendering, loss.detach()


def choose_background(
    view: View,
    image: Tensor,  # [3, H, W]
    config: RgbConfig,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:  # [3], [3, H, W]
    """What to render on, and the photo composed on it."""
    plain = image.new_full((3,), view.background)
    if not config.random_background:
        return plain, image
    background = to_device(torch.rand(3, generator=generator), image.device)
    alpha = view.alpha()
    if alpha is not None:
        image = image + (1 - to_device(alpha, image.device)) * (background - plain)[:, None, None]
    return background, image


def sh_degree(iteration: int, config: RgbConfig) -> int:
    """Colours start the same from everywhere and gain a degree every ``SH_DEGREE_EVERY`` steps."""
    return min(config.sh_degree, iteration // SH_DEGREE_EVERY)


def view_order(views: Sequence[View], seed: int, start: int, end: int) -> Iterator[View]:
    """The views of iterations ``start`` to ``end``: all of them, shuffled, again and again.

    The order depends on nothing but ``seed``, so a run that goes on sees what it would have seen.
    """
    for epoch in range(start // len(views), -(-end // len(views))):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(len(views), generator=generator).tolist()
        first = epoch * len(views)
        yield from (views[i] for i in order[max(start - first, 0) : end - first])


@torch.inference_mode()
def evaluate_rgb(gaussians: Gaussians, views: Sequence[View]) -> dict[str, float]:
    """Mean PSNR (dB), SSIM and L1 over the views; nothing where there are none."""
    totals = torch.zeros(3, dtype=torch.float64)
    for view, image in load_ahead(views, gaussians.means.device):
        background = image.new_full((3,), view.background)
        color = render(gaussians, view.camera, background=background).color.clamp(0, 1)
        totals += torch.stack([psnr(color, image), ssim(color, image), l1(color, image)]).cpu()
    means = (totals / max(len(views), 1)).tolist()
    return dict(zip(("psnr", "ssim", "l1"), means, strict=True)) if views else {}
