"""Options of ``refersplat photos``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from refer3d.runs.config import parse
from refer3d.runs.errors import InputError
from refer3d.runs.folder import refuse_file
from refer3d.runs.options import Bounds, Changeable

DESCRIPTION = (
    "Find the poses of photos, or of sharp frames of a video, and write a scene (-o). Needs the "
    "extra photos: pip install 'refer3d[photos]'"
)
ANYWHERE = Changeable("train")


@dataclass(frozen=True)
class PhotosConfig:
    """Photos and the search for their poses."""

    source: Annotated[Positional[str], arg(metavar="FOLDER_OR_VIDEO"), ANYWHERE] = ""
    """Folder of photos, or a video."""
    output: Annotated[str, arg(aliases=("-o",)), ANYWHERE] = ""
    """Folder of the scene to write."""
    frames: Annotated[int, Bounds(3, 5000)] = 150
    """Number of frames to take from a video."""
    longest_side: Annotated[int, Bounds(64, also=0)] = 1600
    """Make larger photos smaller, to this many pixels along the longer side; 0 keeps their size."""
    camera_model: Literal[
        "SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "OPENCV_FISHEYE"
    ] = "RADIAL"
    """COLMAP's model of each lens before undistortion."""
    pairs: Literal["auto", "all", "sequence"] = "auto"
    """Photos to compare: ``all`` pairs, or those near each other in the order of names
    (``sequence``); ``auto`` compares all of up to 200 photos."""
    threads: Annotated[int, Bounds(1, also=-1), ANYWHERE] = -1
    """Threads; -1 takes one per core. With one, the same photos give the same poses."""
    seed: Annotated[int, Bounds(0)] = 0
    """Seed of COLMAP's random samples."""
    keep_distortion: Annotated[bool, ANYWHERE] = False
    """Keep the photos as their lens made them, so that masks made on them fit; training undistorts
    both. Programs that read pinhole cameras alone need undistorted photos."""
    resume: Annotated[bool, ANYWHERE] = False
    """Go on in a folder in which this program was stopped."""


def read_options(argv: Sequence[str]) -> PhotosConfig:
    """Reads the options.

    Raises:
        InputError: The source or the output is not named, or a value is out of bounds.
    """
    config = parse(PhotosConfig, argv, program="refersplat photos", description=DESCRIPTION)
    if not config.source:
        raise InputError(
            "refersplat photos: expected a folder of photos or a video, got nothing; "
            "refersplat photos FOLDER -o data/NAME"
        )
    if not config.output:
        raise InputError("-o: expected the folder of the new scene, got nothing; add -o data/NAME")
    refuse_file("-o", config.output)
    return config
