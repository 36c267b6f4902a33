"""The command ``detailbase``, also ``python -m detailbase``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from detailbase.command import DESCRIPTIONS, read_options
from refer3d.runs.errors import RESUME, run
from refer3d.runs.programs import Program, run_program

TARGETS = {"train": "detailbase.train:train", "eval": "detailbase.evaluate:report"}
PROGRAMS = {
    **{
        name: Program(target, DESCRIPTIONS[name], partial(read_options, program=name))
        for name, target in TARGETS.items()
    },
    "predict": Program("detailbase.predict:main", "Mark the phrases of a sentence in a scan."),
    "prepare": Program("detailbase.scans.prepare:main", "Prepare ScanNet's scans for training."),
}


def main(argv: Sequence[str]) -> None:
    """Runs the program that the first argument names."""
    run_program("detailbase", PROGRAMS, argv)


def command() -> None:
    """Entry point."""
    run(main, RESUME)


if __name__ == "__main__":
    command()
