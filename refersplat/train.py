"""Trains a scene: Gaussians on its photos, then their referring field on its sentences."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import torch

from refer3d.native.start import start_program
from refer3d.runs.device import choose_device
from refer3d.runs.errors import InputError, run
from refer3d.runs.folder import TIMINGS
from refer3d.runs.options import override
from refer3d.runs.ranks import joined, rank, require_ranks, wait, world
from refer3d.runs.results import Stopwatch
from refer3d.text_encoder import make_encoder
from refersplat.command import claim_folder, newest_cloud, read_options, run_of
from refersplat.config import Config
from refersplat.data import load_scene
from refersplat.data.units import check_visible
from refersplat.referring import train as train_referring
from refersplat.referring.state import RESULT_FILE, refuse_trained_views, trained_views
from refersplat.referring.supervision import supervise
from refersplat.rgb import train as train_rgb
from refersplat.rgb.poses import with_refined_poses
from refersplat.splats.checkpoints import check_resumed, load_gaussians, load_refersplat_field

log = logging.getLogger(__name__)


def main(argv: Sequence[str]) -> None:
    """Runs the command ``train.py``."""
    train(read_options(argv, "train"))


def train(config: Config) -> None:
    """Runs the stages whose files ``config.model_path`` does not hold yet.

    Raises:
        InputError: Something that a stage needs is wrong; all inputs are checked before training.
    """
    start_program("refersplat", config.deterministic)
    with joined(choose_device(config.device)) as device:
        _train(config, device)


def _train(config: Config, device: torch.device) -> None:
    out = Path(config.model_path)
    scene = load_scene(config.data)
    for warning in scene.warnings:
        log.warning("warning: %s", warning)
    is_referring = any(view.objects for view in scene.train)
    if is_referring:
        supervision = supervise(scene, config.train.hold_out_every)
        make_encoder(config.text.encoder, config.text.cache)(supervision.sentences)
    start = config.rgb.start_checkpoint
    given = load_gaussians(start) if start else None
    field = load_refersplat_field(start) if start else None
    log.info(
        "%d training views, %d test views (%s)", len(scene.train), len(scene.test), scene.split
    )
    for folder in Path(start).parents[:3] if start else ():  # its run's is one of them
        if seen := trained_views(folder, scene.test):
            log.warning(
                "--start_checkpoint: the Gaussians of %s were trained on %d of the %d test views",
                *(folder, len(seen), len(scene.test)),
            )

    run = run_of(config)
    is_begun, cloud = run.exists(), newest_cloud(out)
    if not (config.resume and is_begun):
        count = max(config.rgb.views_per_step, world())
        config = override(config, {"rgb.views_per_step": count})
    if not (cloud or given):
        require_ranks(config.rgb.views_per_step, "--rgb.views_per_step: views in each step")
    if config.resume and not is_begun:
        log.warning("--resume: %s holds no run yet, so this starts one", out)
    if given and cloud and not is_begun:
        raise InputError(
            f"--start_checkpoint: {out} has Gaussians of its own, {cloud}; omit the option to use "
            "them, or name another folder"
        )
    gaussians = load_gaussians(cloud) if cloud else given
    if gaussians:
        check_visible(cloud or start, gaussians.means, [view.camera for view in scene.train])
        if config.resume and is_begun:
            is_moved = config.data.scene != run.config().data.scene
            views = with_refined_poses(scene, out).views if is_moved else []
            check_resumed(out, gaussians, given, views)
            refuse_trained_views(out, scene, "restore the split, or name another folder")
    wait()  # for others that still look at the folder as it was
    with nullcontext() if rank() else claim_folder(config):
        watch = Stopwatch(out / TIMINGS)
        if cloud:
            log.info("using the Gaussians of %s", cloud)
        elif given and not rank():
            train_rgb.save_scene(out, given, 0, config.data, scene.views)
        if gaussians:
            gaussians = gaussians.to(device)
        else:
            with watch.stage("rgb"):
                gaussians = train_rgb.train(config, scene, device)
            log.info("%d Gaussians in %.0f s", gaussians.count, watch.stages["rgb"]["seconds"])

        if (refined := with_refined_poses(scene, out)) is not scene and is_referring:
            scene, supervision = refined, supervise(refined, config.train.hold_out_every)
        if not is_referring:
            log.warning("no training view has a sentence: the scene can only be rendered")
        elif not (cloud and Path(out, RESULT_FILE).exists()):  # a field belongs to its Gaussians
            with watch.stage("referring"):
                train_referring.train(config, scene, supervision, gaussians, field)
            log.info("referring field trained in %.0f s", watch.stages["referring"]["seconds"])
        log.info("trained: %s", out)


if __name__ == "__main__":
    run(main)
