"""Options of the program ``many``: every scene or config, with every setting and seed."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from refer3d.runs.errors import InputError
from refer3d.runs.folder import refuse_file

ENGINES = ("local", "ray", "slurm")


class Variant(NamedTuple):
    """One of the runs."""

    source: str
    """The scene's folder, or the config's file."""
    settings: tuple[tuple[str, str], ...]
    """Options that vary, and their values."""
    seed: int | None

    @property
    def name(self) -> str:
        """Name of its folder."""
        parts = [self.label, *(f"{name}={value}" for name, value in self.settings)]
        parts += [] if self.seed is None else [f"seed={self.seed}"]
        return "_".join(part.replace("/", "-").replace(" ", "+") for part in parts)

    @property
    def label(self) -> str:
        """Name of its scene or config."""
        path = Path(self.source).absolute()
        return path.stem if path.suffix in (".yaml", ".yml") else path.name

    @property
    def words(self) -> list[str]:
        """Its settings and seed as a command line."""
        words = [] if self.seed is None else ["--seed", str(self.seed)]
        for name, value in self.settings:
            section, dot, option = name.rpartition(".")
            switches = {"true": f"--{name}", "false": f"--{section}{dot}no_{option}"}
            words += [switches[value]] if value in switches else [f"--{name}", *value.split()]
        return words


@dataclass(frozen=True)
class Many:
    """All runs, and how they are run."""

    out: Path
    """Folder of their folders and of the table."""
    engine: str
    workers: int
    """Runs at a time."""
    slurm: dict[str, Any]
    """Parameters of SLURM's jobs."""
    configs: dict[Variant, Any]
    """Options of each run."""


def read_many(
    argv: Sequence[str],
    command: str,
    description: str,
    source: str,
    read: Callable[[Variant, str, list[str]], Any],
) -> Many:
    """Reads the options of all runs.

    Args:
        argv: The command line.
        command: Name of the program.
        description: Text of its help.
        source: What the runs are of, ``SCENE``.
        read: From a variant, its folder, and the words of the command line that it shares with the
            others or has of its own, to the options of its run.

    Raises:
        InputError: A value is wrong, or two runs have one name.
    """
    parser = argparse.ArgumentParser(
        prog=command,
        description=f"{description} Options of train.py hold for all.",
        allow_abbrev=False,
    )
    parser.add_argument("sources", nargs="+", metavar=source)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="OPTION=A,B",
        help="values of an option that varies; several --set are combined",
    )
    parser.add_argument("--seeds", metavar="0,1,2", help="the default: one run with its own seed")
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="local",
        help="processes here; Ray (extra ray); SLURM by submitit (extra slurm)",
    )
    parser.add_argument("--workers", type=int, default=1, help="runs at a time")
    parser.add_argument(
        "--slurm",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="submitit's parameters: slurm_partition=gpu gpus_per_node=1 timeout_min=240",
    )
    args, rest = parser.parse_known_args(list(argv))
    refuse_file("--out", args.out)
    args.out = args.out.expanduser().absolute()  # for a machine with another folder
    if args.workers < 1:
        raise InputError(f"--workers: expected at least 1, got {args.workers}; leave it out")
    slurm = dict(_pair("--slurm", word) for word in args.slurm)
    variants = list(_variants(args))
    names = [variant.name for variant in variants]
    if double := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"{double}: expected one run of this name, got two; rename a folder")
    return Many(
        *(args.out, args.engine, args.workers),
        slurm={name: int(v) if v.isdigit() else v for name, v in slurm.items()},
        configs={v: read(v, str(args.out / v.name), [*rest, *v.words]) for v in variants},
    )


def _variants(args: argparse.Namespace) -> Iterator[Variant]:
    settings = [_pair("--set", text) for text in args.set]
    values = [[(name, value) for value in text.split(",")] for name, text in settings]
    seeds: list[int | None] = [None]
    if args.seeds is not None:
        words = args.seeds.split(",")
        if not all(word.strip().isdigit() for word in words):
            raise InputError(f"--seeds: expected numbers as in 0,1,2, got {args.seeds!r}")
        seeds = [int(word) for word in words]
    for source, chosen, seed in itertools.product(args.sources, itertools.product(*values), seeds):
        yield Variant(source, chosen, seed)


def _pair(option: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise InputError(f"{option}: expected NAME=VALUE, got {text!r}; write it so")
    return name.removeprefix("--"), value
