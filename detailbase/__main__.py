"""The command ``detailbase``, also ``python -m detailbase``."""

from __future__ import annotations

from functools import partial

from detailbase import start as command
from detailbase.command import (
    DESCRIPTIONS,
    read_describe,
    read_many_options,
    read_options,
    read_predict,
    read_prepare,
)
from detailbase.viewer import options as viewer
from refer3d.runs.programs import RESUME, Program, doctor, run_program

TARGETS = {
    "train": ("detailbase.train:train", partial(read_options, program="train"), RESUME),
    "eval": ("detailbase.evaluate:report", partial(read_options, program="eval")),
    "predict": ("detailbase.predict:predict", read_predict),
    "prepare": (
        "detailbase.scans.prepare:prepare_all",
        read_prepare,
        "the same command goes on behind the scans that are prepared",
    ),
    "many": (
        "detailbase.many:run_many",
        read_many_options,
        "the same command goes on with what is missing",
    ),
    "describe": ("detailbase.descriptions.describe:describe_all", read_describe),
}
PROGRAMS = {name: Program(DESCRIPTIONS[name], *target) for name, target in TARGETS.items()}
PROGRAMS["view"] = Program(
    viewer.DESCRIPTION, "detailbase.viewer.program:view", viewer.read_options
)
PROGRAMS["doctor"] = doctor("detailbase")

__all__ = ["PROGRAMS", "command", "main"]

main = partial(run_program, "detailbase", PROGRAMS)

if __name__ == "__main__":
    command()
