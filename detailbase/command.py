"""What the programs share: their options, and the folders of runs."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path

from detailbase.config import Config
from detailbase.data.clouds import NUM_CLASSES
from native import backend
from runs.config import config_file, differences, load_yaml, parse, save_yaml
from runs.errors import InputError

MODEL = "detailbase"
RUNS = Path("exps")
RESOLVED = "config.yaml"
LAST, BEST = "last.pth", "best.pth"
NEWEST = "newest"
"""What --resume means without a file."""

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

CHANGEABLE = (
    *("work_dir", "resume", "checkpoint", "shuffled_words"),
    *("data.root", "data.prepared", "data.split", "data.test_sentences", "data.workers"),
    *("text.cache", "device", "deterministic", "train.checkpoint_every"),
)
"""Options that a run may be gone on with when they differ: they do not change what is computed,
only where and how much of it is kept."""


LEARNED_DATA = ("voxels_per_metre", "superpoints")
LEARNED = ("network.", "text.encoder", *(f"data.{name}" for name in LEARNED_DATA))
"""Options that a checkpoint's weights depend on."""


def read_options(argv: Sequence[str], program: str, description: str) -> Config:
    """The options of a program; where a run is gone on with, its own are those not given.

    Raises:
        InputError: A file or a value is wrong, or there is no run to go on with.
    """

    def read(words: Sequence[str]) -> Config:
        bare = {"--resume": NEWEST}
        return parse(Config, words, program=program, description=description, bare=bare)

    config = _named(read(argv), argv)
    check(config)
    if program == "eval.py":
        config = _as_learned(config, argv)
    if config.resume:
        state = find_state(config)
        resolved = state.parent / RESOLVED
        before = load_yaml(resolved, Config)
        if before.name != config.name:
            raise InputError(
                f"--resume: {state} is of a run of {before.name!r}, --config names that of "
                f"{config.name!r}; give --config {resolved}"
            )
        again = [*argv, "--config", str(resolved)]
        config = dataclasses.replace(_named(read(again), again), resume=str(state))
        check(config)
        if differing := [n for n in differences(config, before) if n not in CHANGEABLE]:
            was, now = (attrgetter(differing[0])(c) for c in (before, config))
            raise InputError(
                f"--resume: the run in {state.parent} has {differing[0]} {was!r}, now it is "
                f"{now!r}; leave the option out, or start another run"
            )
    check_backend()
    return config


def _as_learned(config: Config, argv: Sequence[str]) -> Config:
    """With the network and text of the run whose checkpoint is scored, and its data where none are
    named.

    Raises:
        InputError: The command line wants another network than the run's.
    """
    resolved = find_checkpoint(config).with_name(RESOLVED)
    if not resolved.is_file():
        return config
    run = load_yaml(resolved, Config)
    learned = dataclasses.replace(config.data, **{n: getattr(run.data, n) for n in LEARNED_DATA})
    if config.data.root == Config().data.root:
        learned = dataclasses.replace(learned, root=run.data.root)
        if not config.data.prepared:
            learned = dataclasses.replace(learned, prepared=run.data.prepared)
    wanted = [n for n in differences(config, run) if n.startswith(LEARNED)]
    for name in wanted:
        if any(word.partition("=")[0] == f"--{name}" for word in argv):
            was, now = (attrgetter(name)(c) for c in (run, config))
            raise InputError(
                f"--{name}: {resolved.parent} was learned with {was!r}, got {now!r}; leave it out"
            )
    return dataclasses.replace(config, network=run.network, text=run.text, data=learned)


def check_backend() -> None:
    """Loads the ops.

    Raises:
        InputError: They are not to be had as the environment wants them.
    """
    try:
        backend(MODEL)
    except (ValueError, ImportError) as error:
        raise InputError(str(error)) from error


def check(config: Config) -> None:
    """Looks at the options before any work is done.

    Raises:
        InputError: One is out of its range.
    """
    for name, (low, high) in RANGES.items():
        value = attrgetter(name)(config)
        if not low <= value <= high or math.isinf(value):
            expected = f"at least {low}" if high == math.inf else f"{low} to {high}"
            raise InputError(f"--{name}: expected {expected}, got {value}; change it")
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


def find_state(config: Config) -> Path:
    """The last.pth that ``--resume`` means.

    Raises:
        InputError: There is none.
    """
    if config.resume == NEWEST:
        return _in_newest_run(config, LAST, "--resume")
    state = Path(config.resume)
    state = state / LAST if state.is_dir() else state
    if not state.is_file():
        raise InputError(f"--resume: {state}: no such file; name the {LAST} of a run")
    return state


def find_checkpoint(config: Config) -> Path:
    """The weights that are scored.

    Raises:
        InputError: There are none.
    """
    if not config.checkpoint:
        return _in_newest_run(config, BEST, "--checkpoint")
    path = Path(config.checkpoint)
    if not path.is_file():
        raise InputError(f"--checkpoint: {path}: no such file; name a {BEST}")
    return path


def claim_folder(config: Config) -> Path:
    """Makes a folder the run's own and writes the options there.

    Raises:
        InputError: It holds another run, which nothing may overwrite.
    """
    if config.resume and not config.work_dir:
        folder = Path(config.resume).parent
    else:
        folder = results_folder(config)
        is_own = config.resume and Path(config.resume).parent.absolute() == folder.absolute()
        if (folder / RESOLVED).exists() and not is_own:
            raise InputError(
                f"--work_dir: {folder} holds a run already; go on with it by --resume, or name "
                "another folder"
            )
    data = config.data  # is found from any folder
    root, prepared = (p and str(Path(p).absolute()) for p in (data.root, data.prepared))
    data = dataclasses.replace(data, root=root, prepared=prepared)
    kept = dataclasses.replace(config, resume="", work_dir=str(folder), data=data)
    save_yaml(kept, folder / RESOLVED, model=MODEL)
    return folder


def results_folder(config: Config) -> Path:
    """``--work_dir``, or a folder of its own for now."""
    if config.work_dir:
        return Path(config.work_dir)
    return RUNS / config.name / time.strftime("%Y%m%d_%H%M%S")


def _in_newest_run(config: Config, name: str, option: str) -> Path:
    folders = [Path(config.work_dir)] if config.work_dir else (RUNS / config.name).glob("*/")
    found = [folder / name for folder in sorted(folders) if (folder / name).is_file()]
    if not found:
        where = config.work_dir or f"{RUNS / config.name}/*"
        raise InputError(f"{option}: {where} holds no {name}; train first, or name the file")
    return found[-1]


def _named(config: Config, argv: Sequence[str]) -> Config:
    """With the config file's name, if it has no other; a run's own file means the run beside it,
    wherever its folder has been moved to.
    """
    path = config_file(argv)
    if path is None:
        return config
    if path.name == RESOLVED and not any(word.startswith("--work_dir") for word in argv):
        config = dataclasses.replace(config, work_dir=str(path.parent))
    return config if config.name else dataclasses.replace(config, name=path.stem)
