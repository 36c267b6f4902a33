"""Options of ``refersplat export``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import arg

from refer3d.runs.config import parse, require_values
from refer3d.runs.errors import InputError

DESCRIPTION = (
    "Write a run's Gaussians, those that a sentence means or the others, for viewers; or masks for "
    "annotation tools. -o names the file: .ply, .compressed.ply, .splat, .spz, .glb "
    "(KHR_gaussian_splatting), .json (COCO), or a folder for masks as PNG."
)


@dataclass(frozen=True)
class ExportConfig:
    """Gaussians or masks to write, and their file."""

    model_path: Annotated[str, arg(aliases=("-m",))] = ""
    """Folder of a run, or a file of Gaussians to convert."""
    output: Annotated[str, arg(aliases=("-o",))] = ""
    """File or folder to write; its ending chooses the format."""
    sentence: tuple[str, ...] = ()
    """Sentences; Gaussians that any of them means are selected."""
    selection: Literal["keep", "remove"] = "keep"
    """Keep the selected Gaussians, or remove them."""
    view: str = ""
    """View whose camera is the viewpoint of "left" and the like in sentences."""
    views: tuple[str, ...] = ()
    """Views of the masks; without, all of the run."""
    amodal: bool = False
    """Masks with the parts that other objects hide."""
    device: str = "auto"
    """Device of the computation."""


def read_options(argv: Sequence[str]) -> ExportConfig:
    """Reads the options.

    Raises:
        InputError: The run or the file is not named, or a sentence is empty.
    """
    require_values(argv, "--sentence", "--views")
    config = parse(ExportConfig, argv, program="refersplat export", description=DESCRIPTION)
    if not config.model_path:
        raise InputError(
            "-m: expected the folder of a run or a file of Gaussians, got nothing; add "
            "-m output/NAME"
        )
    if not config.output:
        raise InputError("-o: expected a file to write, got nothing; add -o objects.ply")
    if any(not sentence.strip() for sentence in config.sentence):
        raise InputError("--sentence: expected words, got nothing; write them in quotes")
    return config
