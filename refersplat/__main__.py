"""The command ``refersplat``, also ``python -m refersplat``."""

from __future__ import annotations

from functools import partial

from refer3d.runs.errors import RESUME, run
from refer3d.runs.programs import Program, run_program
from refersplat.command import DESCRIPTIONS, read_options

TARGETS = {
    "train": "refersplat.train:train",
    "render": "refersplat.pictures:draw",
    "eval": "refersplat.evaluate:report",
}
PROGRAMS = {
    **{
        name: Program(target, DESCRIPTIONS[name], partial(read_options, program=name))
        for name, target in TARGETS.items()
    },
    "check": Program("refersplat.data.check:main", "Describe a scene and what is wrong with it."),
}

main = partial(run_program, "refersplat", PROGRAMS)
command = partial(run, main, RESUME)
"""Entry point."""

if __name__ == "__main__":
    command()
