"""Trains a scene: Gaussians that look like its photos, then sentences that they answer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from refersplat import train_referring, train_rgb
from refersplat.checkpoint import load_gaussians
from refersplat.command import (
    RESOLVED,
    TIMINGS,
    claim_folder,
    newest_cloud,
    read_options,
    trained_gaussians,
)
from refersplat.config import Config
from refersplat.data import Scene, load_scene
from refersplat.gaussians import Gaussians
from refersplat.supervision import supervise
from runs.device import choose_device, fix_order_of_sums
from runs.results import Stopwatch
from text_encoder import make_encoder

log = logging.getLogger(__name__)

DESCRIPTION = "Trains refersplat on a scene (-s) and writes a folder (-m)."


def main(argv: Sequence[str]) -> None:
    """The command."""
    train(read_options(argv, "train.py", DESCRIPTION))


def train(config: Config) -> None:
    """Runs the stages that the run in ``config.model_path`` still has.

    Raises:
        InputError: Something that a stage needs is wrong; the later stages' are looked at first.
    """
    fix_order_of_sums(config.deterministic)
    out, device = Path(config.model_path), choose_device(config.device)
    scene = load_scene(config.data)
    for warning in scene.warnings:
        log.warning("warning: %s", warning)
    is_referring = any(view.objects for view in scene.train)
    if is_referring:
        supervision = supervise(scene, config.train.keep_aside)
        make_encoder(config.text.encoder, config.text.cache)(supervision.sentences)
    if config.rgb.start_checkpoint:
        load_gaussians(config.rgb.start_checkpoint)
    log.info(
        "%d training views, %d test views (%s)", len(scene.train), len(scene.test), scene.split
    )

    if config.resume and not Path(out, RESOLVED).exists():
        log.warning("--resume: there is no run in %s yet, so this is its beginning", out)
    trained_elsewhere = newest_cloud(out) is not None and not Path(out, TIMINGS).exists()
    claim_folder(config)
    watch = Stopwatch(out / TIMINGS)
    if trained_elsewhere:
        log.info("taking the Gaussians of %s", newest_cloud(out))
        with watch.stage("rgb"):
            gaussians = trained_gaussians(out).to(device)
    elif watch.is_finished("rgb"):
        gaussians = trained_gaussians(out).to(device)
    else:
        with watch.stage("rgb"):
            gaussians = train_rgb.train(config, scene, device)
    log.info("%d Gaussians in %.0f s", gaussians.count, watch.stages["rgb"]["seconds"])

    if not is_referring:
        log.warning("no training view has a sentence: there is nothing to refer to, only to render")
    elif not watch.is_finished("referring"):
        refer(config, scene, gaussians, watch)
    log.info("trained: %s", out)


def refer(config: Config, scene: Scene, gaussians: Gaussians, watch: Stopwatch) -> None:
    """The referring stage."""
    with watch.stage("referring"):
        train_referring.train(config, scene, gaussians)
    log.info("sentences learned in %.0f s", watch.stages["referring"]["seconds"])
