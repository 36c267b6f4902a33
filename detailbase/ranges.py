"""Which values of the options make sense."""

from __future__ import annotations

import math
from pathlib import Path

from detailbase.config import Config
from detailbase.scans.clouds import NUM_CLASSES
from refer3d.runs.config import check_ranges
from refer3d.runs.errors import InputError

RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, 2**32 - 1),
    "data.voxels_per_metre": (1, 1000),
    "data.scenes_per_batch": (1, math.inf),
    "data.max_sentences": (1, math.inf),
    "data.test_sentences": (1, math.inf),
    "data.max_points": (1000, math.inf),
    "data.workers": (0, math.inf),
    "data.augment.jitter": (0, 1),
    "data.augment.jitter_chance": (0, 1),
    "data.augment.flip": (0, 1),
    "data.augment.rotate": (0, 1),
    "data.augment.elastic": (0, 1),
    "data.augment.color": (0, 2),
    "data.augment.color_chance": (0, 1),
    "network.width": (1, math.inf),
    "network.heads": (1, math.inf),
    "network.hidden": (1, math.inf),
    "network.layers": (1, math.inf),
    "network.objects": (0, math.inf),
    "network.classes": (0, math.inf),
    "train.epochs": (1, math.inf),
    "train.lr": (0, math.inf),
    "train.weight_decay": (0, math.inf),
    "train.backbone_lr_scale": (0, math.inf),
    "train.accumulate": (1, math.inf),
    "train.average": (0, 0.99999),
    "train.clip": (0, math.inf),
    "train.balance": (0, 1),
    "train.class_weight": (0, math.inf),
    "train.object_weight": (0, math.inf),
    "train.checkpoint_every": (1, math.inf),
}
"""Least and greatest value of options."""


def check(config: Config) -> None:
    """Looks at the options before any work is done.

    Raises:
        InputError: One is out of its range.
    """
    check_ranges(config, RANGES)
    network, drops = config.network, config.train.lr_drops
    if network.width % network.heads:
        raise InputError(
            f"--network.width: expected a multiple of the {network.heads} heads, got "
            f"{network.width}; change one"
        )
    if len(network.channels) < 2 or min(network.channels) < 1:
        raise InputError(
            f"--network.channels: expected two widths or more, got {network.channels}; name them"
        )
    if 0 < network.classes < NUM_CLASSES:
        raise InputError(
            f"--network.classes: expected 0 or at least {NUM_CLASSES}, got {network.classes}; "
            "change it"
        )
    if list(drops) != sorted(drops) or any(not 0 < drop <= 1 for drop in drops):
        raise InputError(
            f"--train.lr_drops: expected ascending shares of the epochs, 0 to 1, got {drops}"
        )
    if not config.data.train_on:
        raise InputError("--data.train_on: expected at least one dataset, got none; name one")
    if config.work_dir and Path(config.work_dir).exists() and not Path(config.work_dir).is_dir():
        raise InputError(
            f"--work_dir: expected a folder, got the file {config.work_dir}; name another"
        )
