"""The command ``detailbase``, also ``python -m detailbase``."""

from __future__ import annotations

from functools import partial

from detailbase.command import DESCRIPTIONS, read_options, read_predict, read_prepare
from refer3d.runs.errors import RESUME, run
from refer3d.runs.programs import DOCTOR, Program, run_program

TARGETS = {
    "train": ("detailbase.train:train", partial(read_options, program="train")),
    "eval": ("detailbase.evaluate:report", partial(read_options, program="eval")),
    "predict": ("detailbase.predict:predict", read_predict),
    "prepare": ("detailbase.scans.prepare:prepare_all", read_prepare),
}
PROGRAMS = {name: Program(DESCRIPTIONS[name], *target) for name, target in TARGETS.items()}
PROGRAMS["doctor"] = DOCTOR

main = partial(run_program, "detailbase", PROGRAMS)
command = partial(run, main, RESUME)
"""Entry point."""

if __name__ == "__main__":
    command()
