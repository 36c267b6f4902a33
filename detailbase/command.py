"""Options of the programs train and eval, and the folders of runs."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from operator import attrgetter
from pathlib import Path

from detailbase.config import LEARNED, UNITS, UPS, Config
from refer3d.runs.config import parse, take_option
from refer3d.runs.errors import InputError
from refer3d.runs.folder import RESOLVED, RunFolder, other_run, refuse_file
from refer3d.runs.many import Many, Variant, read_many
from refer3d.runs.options import override

RUNS = Path("exps")
EXPORTS = ("ply", "obj", "glb", "las", "laz")
"""Formats of marked parts."""
LAST, BEST = "last.pth", "best.pth"
NEWEST = "newest"
"""Value of --resume without a file."""
DESCRIPTIONS = {
    "train": "Train detailbase on descriptions of scans and write a folder below exps/.",
    "eval": "Score a trained detailbase (--checkpoint); write results.json and ious.json.",
    "many": "Train and score configs with several settings, datasets and seeds; print one table. A "
    "stopped command goes on with what is missing.",
    "describe": "Describe the labelled objects of ScanNet's scans, for training where people "
    "have written few sentences: train.py --data.train_on detailrefer described.",
    "predict": "Segment the phrases of a sentence in a scan.",
    "prepare": "Prepare ScanNet's scans for training. Prepared ones stay, so a stopped run "
    "goes on; a broken scan does not stop the others, and makes the exit status 2.",
}


def read_options(argv: Sequence[str], program: str) -> Config:
    """Reads the options of a program; a resumed run's own are those not given.

    Raises:
        InputError: A file or a value is wrong, or there is no run to resume.
    """
    words = [  # --resume may stand without a file
        f"{word}={NEWEST}" if word == "--resume" and after.startswith("-") else word
        for word, after in itertools.zip_longest(argv, argv[1:], fillvalue="--")
    ]
    config = parse(
        Config, words, program=f"detailbase {program}", description=DESCRIPTIONS[program]
    )
    config = _named(config, words, take_option(words, "--config")[0])
    refuse_file("--work_dir", config.work_dir)
    if program == "eval":
        return _as_learned(config, words)
    if config.resume:
        state = find_state(config)
        run = RunFolder(state.parent, Config)
        name = run.config().name
        if name != config.name:
            raise InputError(
                f"--resume: {state} is of a run of {name!r}, --config names that of "
                f"{config.name!r}; give --config {run.config_file}"
            )
        resumed = _named(_over(run, words), words, run.config_file)
        run.refuse_changes(resumed, "train", "start another run")
        config = dataclasses.replace(resumed, resume=str(state))
    return config


def _as_learned(config: Config, words: Sequence[str]) -> Config:
    """Takes the options that the weights depend on from the checkpoint's run, and its data where
    none are named.

    Raises:
        InputError: The command line changes an option that the weights depend on.
    """
    run = RunFolder(find_checkpoint(config).parent, Config)
    if not run.exists():
        return config
    run.refuse_changes(_over(run, words), "eval", "train with it")
    names = [*LEARNED]
    if config.data.root == Config().data.root:
        names += ["data.root"] if config.data.prepared else ["data.root", "data.prepared"]
    trained = run.config()
    return override(config, {name: attrgetter(name)(trained) for name in names})


def read_predict(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the options of ``detailbase predict``.

    Raises:
        InputError: A value is wrong.
    """
    parser = argparse.ArgumentParser(prog="detailbase predict", description=DESCRIPTIONS["predict"])
    parser.add_argument("scan", type=Path, help="a mesh or cloud: PLY, OBJ, glTF, LAS, E57, …")
    parser.add_argument("sentence")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--checkpoint", type=Path, help="best.pth of a training")
    parser.add_argument(
        "--config", type=Path, help="options of the network; the default is the run's own"
    )
    parser.add_argument("--phrases", nargs="+", help="the default: all noun phrases")
    parser.add_argument(
        "--export",
        nargs="+",
        choices=EXPORTS,
        default=(),
        help="write what each phrase marks as a file of its own, too: faces of a mesh, else points",
    )
    parser.add_argument("--unit", choices=UNITS, default="m", help="unit of the scan")
    parser.add_argument(
        "--up",
        choices=("auto", *UPS),
        default="auto",
        help="vertical axis, y for glTF and else z; --up=-y for negative ones",
    )
    parser.add_argument(
        "--max_points", type=int, default=1_000_000, help="larger scans are thinned"
    )
    parser.add_argument(
        "--turns", type=int, default=1, help="average over turns of the scan; takes as many times"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=("highest", "high", "medium"), default="highest")
    args = parser.parse_args(argv)
    if args.max_points < 1:
        raise InputError(f"--max_points: expected at least 1, got {args.max_points}; change it")
    if not 1 <= args.turns <= 64:
        raise InputError(f"--turns: expected 1 to 64, got {args.turns}; change it")
    refuse_file("-o", args.out)
    return args


def read_prepare(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the options of ``detailbase prepare``.

    Raises:
        InputError: A value is wrong.
    """
    parser = argparse.ArgumentParser(prog="detailbase prepare", description=DESCRIPTIONS["prepare"])
    parser.add_argument("--root", type=Path, default=Path("data"), help="has scans/ or scannetv2/")
    parser.add_argument("--out", type=Path, help="by default beside scans/")
    parser.add_argument(
        "--split", choices=("train", "val", "all"), default="all", help="test's scans are in val"
    )
    parser.add_argument("--workers", type=int, default=0, help="processes; 0 is one for each core")
    parser.add_argument("--force", action="store_true", help="also what is prepared already")
    args = parser.parse_args(argv)
    if args.workers < 0:
        raise InputError(f"--workers: expected 0 or more, got {args.workers}; leave it out")
    return args


def read_describe(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the options of ``detailbase describe``.

    Raises:
        InputError: A value is wrong.
    """
    parser = argparse.ArgumentParser(
        prog="detailbase describe", description=DESCRIPTIONS["describe"]
    )
    parser.add_argument("--root", type=Path, default=Path("data"), help="has scans/ or scannetv2/")
    parser.add_argument(
        "--out", type=Path, help="by default Described/described_SPLIT.json in root"
    )
    parser.add_argument("--split", choices=("train", "val"), default="train", help="list of scans")
    parser.add_argument("--each", type=int, default=2, help="most descriptions of an object")
    parser.add_argument("--compose", type=int, default=0, metavar="N", help="N new rooms, too")
    parser.add_argument("--prepared", type=Path, help="folder of prepared scans, for new rooms")
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice of words")
    args = parser.parse_args(argv)
    for name, least in (("each", 1), ("compose", 0)):
        if getattr(args, name) < least:
            got = getattr(args, name)
            raise InputError(f"--{name}: expected {least} or more, got {got}; leave it out")
    return args


def read_many_options(argv: Sequence[str]) -> Many:
    """Reads the options of ``detailbase many``.

    Raises:
        InputError: A value is wrong, or a folder holds a run with other options.
    """

    def read(variant: Variant, folder: str, words: list[str]) -> Config:
        given = ["--config", variant.source, "--work_dir", folder, *words]
        config, run = read_options(given, "train"), RunFolder(folder, Config)
        config = override(config, _absolute_data(config))  # for a machine with another folder
        if run.exists():
            run.refuse_changes(config, "train", "name another --out")
        return config

    return read_many(argv, "detailbase many", DESCRIPTIONS["many"], "CONFIG", read)


def find_state(config: Config) -> Path:
    """Finds the last.pth that ``--resume`` means.

    Raises:
        InputError: There is none.
    """
    if config.resume == NEWEST:
        return _in_newest_run(config, LAST, "--resume")
    state = Path(config.resume)
    state = state / LAST if state.is_dir() else state
    if not state.is_file():
        advice = other_run(state, "detailbase") or f"name the {LAST} of a run"
        raise InputError(f"--resume: {state}: no such file; {advice}")
    if state.name == BEST:
        raise InputError(
            f"--resume: expected the {LAST} of a run, got {state}, which holds the network alone; "
            f"name {state.with_name(LAST)}, or start another run with --train.start {state}"
        )
    return state


def find_checkpoint(config: Config) -> Path:
    """Finds the weights to score.

    Raises:
        InputError: There are none.
    """
    if not config.checkpoint:
        return _in_newest_run(config, BEST, "--checkpoint")
    path = Path(config.checkpoint)
    check_checkpoint(path, f"name a {BEST}")
    return path


def check_checkpoint(path: Path, remedy: str) -> None:
    """Checks that ``--checkpoint`` names a file.

    Raises:
        InputError: It does not; where nothing is there, the message ends with ``remedy``.
    """
    if path.is_file():
        return
    fault = f"--checkpoint: {path}: "
    if other := other_run(path, "detailbase"):
        raise InputError(fault + other)
    if path.is_dir():
        raise InputError(f"{fault}expected a file, got a folder; name its {BEST}")
    raise InputError(f"{fault}no such file; {remedy}")


@contextmanager
def claim_folder(config: Config, save: Callable[[Path], None]) -> Iterator[Path]:
    """Makes a folder the run's own, alone for as long, and writes its state and options there.

    Args:
        config: The run's options.
        save: Writes the state of the training into a file. The options come after it, since they
            make the folder a run's, which can be resumed.

    Raises:
        InputError: It holds another run.
    """
    run_of_state = Path(config.resume).parent if config.resume else None
    folder = run_of_state if run_of_state and not config.work_dir else results_folder(config)
    run = RunFolder(folder, Config)
    with run.held("--work_dir"):
        is_resumed = run_of_state is not None and run_of_state.absolute() == folder.absolute()
        if not is_resumed:
            run.refuse_second_run("--work_dir")
            save(folder / LAST)
        values = {"resume": "", "work_dir": str(folder)}
        run.claim(override(config, _absolute_data(config) | values))
        yield folder


def _absolute_data(config: Config) -> dict[str, str]:
    """The folders of the data as they are found from any folder, by the options' names."""
    names = ("data.root", "data.prepared")
    paths = {name: attrgetter(name)(config) for name in names}
    return {name: path and str(Path(path).absolute()) for name, path in paths.items()}


def results_folder(config: Config) -> Path:
    """Returns ``--work_dir``, or makes a new folder below exps/."""
    if config.work_dir:
        return Path(config.work_dir)
    base = RUNS / config.name / time.strftime("%Y%m%d_%H%M%S")
    for folder in itertools.chain([base], (Path(f"{base}_{n}") for n in itertools.count(2))):
        with suppress(FileExistsError):  # of another run of the same second
            folder.mkdir(parents=True)
            break
    return folder


def _in_newest_run(config: Config, name: str, option: str) -> Path:
    folders = [Path(config.work_dir)] if config.work_dir else (RUNS / config.name).glob("*/")
    files = [folder / name for folder in sorted(folders) if (folder / name).is_file()]
    if not files:
        where = config.work_dir or f"{RUNS / config.name}/*"
        raise InputError(f"{option}: {where} holds no {name}; train first, or name the file")
    return files[-1]


def _over(run: RunFolder[Config], argv: Sequence[str]) -> Config:
    """Reads the command line over a run's options instead of those of --config."""
    _, words = take_option(argv, "--config")
    return parse(Config, words, program="", description="", base=run.config())


def _named(config: Config, argv: Sequence[str], path: Path | str | None) -> Config:
    """Fills in the run's name from the config file's. A run's own config.yaml means the run beside
    it, wherever its folder has been moved to.
    """
    if path is None:
        return config
    has_folder = take_option(argv, "--work_dir", "--work-dir")[0] is not None
    if Path(path).name == RESOLVED and not has_folder:
        config = dataclasses.replace(config, work_dir=str(Path(path).parent))
    return config if config.name else dataclasses.replace(config, name=Path(path).stem)
