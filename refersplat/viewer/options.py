"""Options of ``refersplat view``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

from tyro.conf import arg

from refer3d.runs.config import parse
from refer3d.runs.errors import InputError
from refer3d.viewer import ServerConfig

DESCRIPTION = (
    "Show a run (-m) in the browser: type a sentence and see what it means, or label objects by "
    "lasso. Needs the extra viewer: pip install 'refer3d[viewer]'."
)


@dataclass(frozen=True)
class ViewConfig:
    """Run to show."""

    model_path: Annotated[str, arg(aliases=("-m",))] = ""
    """Folder of the run."""
    scene: Annotated[str, arg(aliases=("-s",))] = ""
    """Folder of the run's scene, if it has moved; labels are saved there."""
    sentence: str = ""
    """Sentence to begin with."""
    sam: str = ""
    """SAM or SAM 2, a folder or a name on the Hugging Face hub: a click outlines an object."""
    device: str = "auto"
    """Device of the computation."""
    server: ServerConfig = field(default_factory=ServerConfig)


def read_options(argv: Sequence[str]) -> ViewConfig:
    """Reads the options.

    Raises:
        InputError: The run is not named, or a value is out of bounds.
    """
    config = parse(ViewConfig, argv, program="refersplat view", description=DESCRIPTION)
    if not config.model_path:
        raise InputError("-m: expected the folder of the run, got nothing; add -m output/NAME")
    return config
