"""The command ``refersplat``, also ``python -m refersplat``."""

from __future__ import annotations

from functools import partial

from refer3d.runs.programs import RESUME, Program, doctor, run_program
from refersplat import start as command
from refersplat.command import DESCRIPTIONS, read_check, read_many_options, read_options
from refersplat.export import options as export
from refersplat.masks import options as masks
from refersplat.photos import options as photos
from refersplat.viewer import options as viewer

TARGETS = {
    "train": ("refersplat.train:train", partial(read_options, program="train"), RESUME),
    "render": ("refersplat.pictures:draw", partial(read_options, program="render")),
    "eval": ("refersplat.tables:report", partial(read_options, program="eval")),
    "many": (
        "refersplat.many:run_many",
        read_many_options,
        "the same command goes on with what is missing",
    ),
    "check": ("refersplat.data.check:report", read_check),
}
PROGRAMS = {name: Program(DESCRIPTIONS[name], *target) for name, target in TARGETS.items()}
PROGRAMS["photos"] = Program(
    *(photos.DESCRIPTION, "refersplat.photos.program:make_scene", photos.read_options),
    when_stopped="the same command with --resume goes on; features and matches are kept",
)
PROGRAMS["masks"] = Program(
    *(masks.DESCRIPTION, "refersplat.masks.program:make_masks", masks.read_options),
    when_stopped="the same command goes on; finished photos are kept",
)
PROGRAMS["export"] = Program(
    export.DESCRIPTION, "refersplat.export.program:export", export.read_options
)
PROGRAMS["view"] = Program(
    viewer.DESCRIPTION, "refersplat.viewer.program:view", viewer.read_options
)
PROGRAMS["doctor"] = doctor("refersplat")

__all__ = ["PROGRAMS", "command", "main"]

main = partial(run_program, "refersplat", PROGRAMS)

if __name__ == "__main__":
    command()
