"""What the programs share: their options, the datasets' files, and the folder of a run."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path

import torch

from detailbase.config import Config
from detailbase.data.references import Reference, read_references
from runs.config import parse
from runs.errors import InputError

RESOLVED = "config.yaml"
LAST, BEST = "last.pth", "best.pth"
NEWEST = "newest"
"""What --resume means without a file."""

FILES = {
    "detailrefer": "DetailRefer/DetailRefer_{split}.json",
    "scanrefer": "ScanRefer/ScanRefer_filtered_{split}.json",
    "multi3drefer": "Multi3DRefer/multi3drefer_{split}.json",
}
"""Where a dataset's descriptions lie below the root."""
SOURCES = {
    "detailrefer": "DetailRefer comes with the 3D-DRES paper (arXiv 2603.02896)",
    "scanrefer": "ScanRefer is given out at https://daveredrum.github.io/ScanRefer after its form",
    "multi3drefer": "Multi3DRefer is given out at https://3dlg-hcvc.github.io/multi3drefer",
}

RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, math.inf),
    "data.voxels_per_metre": (1, 1000),
    "data.scenes_per_batch": (1, math.inf),
    "data.max_sentences": (1, math.inf),
    "data.test_sentences": (1, math.inf),
    "data.max_points": (1000, math.inf),
    "data.workers": (0, math.inf),
    "data.augment.jitter": (0, 1),
    "data.augment.flip": (0, 1),
    "data.augment.elastic": (0, 1),
    "data.augment.color": (0, 2),
    "model.width": (1, math.inf),
    "model.heads": (1, math.inf),
    "model.hidden": (1, math.inf),
    "model.layers": (1, math.inf),
    "train.epochs": (1, math.inf),
    "train.lr": (0, math.inf),
    "train.weight_decay": (0, math.inf),
    "train.backbone_lr_scale": (0, math.inf),
    "train.accumulate": (1, math.inf),
    "train.clip": (0, math.inf),
    "train.checkpoint_every": (1, math.inf),
}
"""Least and greatest value of options."""

CHANGEABLE = (
    *("work_dir", "resume", "checkpoint", "shuffled_words", "data.root", "data.prepared"),
    *("data.split", "data.workers", "data.test_sentences", "text.cache", "train.device"),
    "train.checkpoint_every",
)
"""Options that a run may be gone on with when they differ: its result does not depend on them."""


def read_options(argv: Sequence[str], program: str, description: str) -> Config:
    """The options of a program.

    Raises:
        InputError: A file or a value is wrong.
    """
    words = list(argv)
    for index, word in enumerate(words):  # --resume may stand without a file
        if word == "--resume" and (index + 1 == len(words) or words[index + 1].startswith("-")):
            words[index] = f"--resume={NEWEST}"
    config = parse(Config, words, program=program, description=description)
    check(config)
    return config


def check(config: Config) -> None:
    """Looks at the options before any work is done.

    Raises:
        InputError: One is out of its range.
    """
    for name, (low, high) in RANGES.items():
        value = attrgetter(name)(config)
        if not low <= value <= high:
            expected = f"at least {low}" if high == math.inf else f"{low} to {high}"
            raise InputError(f"--{name}: expected {expected}, got {value}; change it")
    if config.model.width % config.model.heads:
        raise InputError(
            f"--model.width: expected a multiple of {config.model.heads} heads, got "
            f"{config.model.width}"
        )
    if len(config.model.channels) < 2 or min(config.model.channels) < 1:
        raise InputError(f"--model.channels: expected two or more, got {config.model.channels}")
    drops = config.train.lr_drops
    if list(drops) != sorted(drops) or any(not 0 < drop <= 1 for drop in drops):
        raise InputError(f"--train.lr_drops: expected ascending shares of the epochs, got {drops}")
    if config.data.split not in ("train", "val", "test"):
        raise InputError(f"--data.split: expected train, val or test, got {config.data.split!r}")
    if not config.data.train_on:
        raise InputError("--data.train_on: expected at least one dataset, got none")


def choose_device(name: str) -> torch.device:
    """The device that ``train.device`` names.

    Raises:
        InputError: There is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--train.device: {name!r} cannot be used ({reason})") from error


def references_of(config: Config, dataset: str, split: str) -> list[Reference]:
    """A dataset's descriptions.

    Raises:
        InputError: The file is absent or wrong.
    """
    path = Path(config.data.root) / FILES[dataset].format(split=split)
    if not path.is_file():
        raise InputError(f"{path}: no such file; {SOURCES[dataset]}, or name --data.root")
    return read_references(path, dataset)


def prepared_folder(config: Config) -> Path:
    """Where prepared scans lie."""
    if config.data.prepared:
        return Path(config.data.prepared)
    root = Path(config.data.root)
    nested = root / "scannetv2"
    return nested if nested.is_dir() else root


def run_folder(config: Config, argv: Sequence[str]) -> tuple[Path, Path | None]:
    """The folder of a training, and the state that it goes on from, if any.

    Raises:
        InputError: There is nothing to go on with, or the folder holds another run.
    """
    runs = Path("exps", config_name(argv))
    if config.resume and config.resume != NEWEST:
        state = Path(config.resume)
        state = state / LAST if state.is_dir() else state
        if not state.is_file():
            raise InputError(f"--resume: {state}: no such file; a run writes {LAST}")
        return Path(config.work_dir) if config.work_dir else state.parent, state
    if config.resume:
        folders = [Path(config.work_dir)] if config.work_dir else sorted(runs.glob("*"))
        states = [folder / LAST for folder in folders if (folder / LAST).is_file()]
        if not states:
            where = config.work_dir or runs
            raise InputError(f"--resume: {where}: holds no {LAST}; start without --resume")
        return states[-1].parent, states[-1]
    folder = Path(config.work_dir) if config.work_dir else runs / time.strftime("%Y%m%d_%H%M%S")
    if (folder / RESOLVED).exists():
        raise InputError(
            f"--work_dir: {folder} holds a run already; go on with it by --resume, or name another"
        )
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--work_dir: expected a folder, got the file {folder}; name another")
    return folder, None


def config_name(argv: Sequence[str]) -> str:
    """The name of the file that ``--config`` names."""
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        if word == "--config" and following:
            return Path(following).stem
        if word.startswith("--config="):
            return Path(word.partition("=")[2]).stem
    return "default"


def at_test(config: Config) -> Config:
    """The same options with the sizes of evaluation."""
    data = dataclasses.replace(config.data, max_sentences=config.data.test_sentences)
    return dataclasses.replace(config, data=data)
