"""The command ``detailbase``, also ``python -m detailbase``."""

from __future__ import annotations

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

main = partial(run_program, "detailbase", PROGRAMS)
command = partial(run, main, RESUME)
"""Entry point."""

if __name__ == "__main__":
    command()
