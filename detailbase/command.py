"""What the programs share: their options, and the folders of runs."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path

from detailbase.config import LEARNED, LEARNED_DATA, Config
from detailbase.model.checkpoint import RESOLVED
from detailbase.ranges import check
from refer3d.native import backend
from refer3d.runs.config import config_file, differences, load_yaml, parse, save_yaml
from refer3d.runs.errors import InputError

MODEL = "detailbase"
RUNS = Path("exps")
LAST, BEST = "last.pth", "best.pth"
NEWEST = "newest"
"""What --resume means without a file."""

CHANGEABLE = (
    *("work_dir", "resume", "checkpoint", "shuffled_words"),
    *("data.root", "data.prepared", "data.split", "data.test_sentences", "data.workers"),
    *("text.cache", "device", "deterministic", "train.checkpoint_every"),
)
"""Options that may differ on --resume: they do not change what is computed, only where and how much
of it is kept."""


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
    wanted = parse(Config, [*argv, "--config", str(resolved)], program="eval.py", description="")
    for name in differences(wanted, run):
        if name.startswith(LEARNED):
            was, now = (attrgetter(name)(c) for c in (run, wanted))
            raise InputError(
                f"--{name}: {resolved.parent} was learned with {was!r}, got {now!r}; leave it out"
            )
    learned = dataclasses.replace(config.data, **{n: getattr(run.data, n) for n in LEARNED_DATA})
    if config.data.root == Config().data.root:
        learned = dataclasses.replace(learned, root=run.data.root)
        if not config.data.prepared:
            learned = dataclasses.replace(learned, prepared=run.data.prepared)
    text = dataclasses.replace(config.text, encoder=run.text.encoder)
    return dataclasses.replace(config, network=run.network, text=text, data=learned)


def check_backend() -> None:
    """Loads the ops.

    Raises:
        InputError: They are not to be had as the environment wants them.
    """
    try:
        backend(MODEL)
    except (ValueError, ImportError) as error:
        raise InputError(str(error)) from error


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
