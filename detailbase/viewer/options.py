"""Options of ``detailbase view``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from refer3d.runs.config import parse
from refer3d.runs.errors import InputError
from refer3d.runs.options import Bounds
from refer3d.viewer import ServerConfig

DESCRIPTION = (
    "Show a scan in the browser: type a sentence and see its phrases marked. Needs the extra "
    "viewer: pip install 'refer3d[viewer]'."
)


@dataclass(frozen=True)
class ViewConfig:
    """Scan and network; the options are those of ``detailbase predict``."""

    scan: Annotated[Positional[str], arg(metavar="SCAN")] = ""
    """A mesh or cloud: PLY, OBJ, glTF, LAS, E57, …"""
    sentence: str = ""
    """Sentence to begin with."""
    checkpoint: str = ""
    """best.pth of a training; without, the small network of the package."""
    unit: Literal["m", "cm", "mm"] = "m"
    """Unit of the scan."""
    up: Literal["auto", "x", "y", "z", "-x", "-y", "-z"] = "auto"
    """Vertical axis; ``auto`` is y for glTF, else z."""
    max_points: Annotated[int, Bounds(1)] = 1_000_000
    """Larger scans are thinned."""
    device: str = "auto"
    """Device of the computation."""
    server: ServerConfig = field(default_factory=ServerConfig)


def read_options(argv: Sequence[str]) -> ViewConfig:
    """Reads the options.

    Raises:
        InputError: The scan is not named, or a value is out of bounds.
    """
    config = parse(ViewConfig, argv, program="detailbase view", description=DESCRIPTION)
    if not config.scan:
        raise InputError("detailbase view: expected the file of a scan, got nothing; name it")
    return config
