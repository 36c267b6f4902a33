"""Options of ``refersplat masks``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from refer3d.runs.config import parse
from refer3d.runs.errors import InputError
from refer3d.runs.options import Bounds, Changeable

DESCRIPTION = (
    "Mask the objects that sentences describe in a scene's photos, by GroundingDINO and SAM, SAM 2 "
    "or SAM 3. Writes json/, gt_mask/ and, in masking/, a report and contact sheets."
)
ANYWHERE = Changeable("train")


@dataclass(frozen=True)
class MasksConfig:
    """Sentences, and the models that find what they mean."""

    scene: Annotated[Positional[str], arg(metavar="SCENE"), ANYWHERE] = ""
    """Folder of the scene."""
    sentences: Annotated[str, ANYWHERE] = ""
    """Text file with one object's sentence per line, or .json: ``{object: [sentence, …]}``."""
    detector: str = "IDEA-Research/grounding-dino-base"
    """GroundingDINO: a folder, or a name on the Hugging Face hub. SAM 3 needs none."""
    segmenter: str = "facebook/sam2.1-hiera-large"
    """SAM, SAM 2 or SAM 3: a folder, or a name on the hub."""
    prompt: Literal["auto", "sentence", "phrase"] = "auto"
    """Words that the models read: the sentence, or its noun phrase without relations ("red mug");
    ``auto`` takes the phrase for SAM 3, which knows phrases only."""
    box_threshold: Annotated[float, Bounds(0, 1)] = 0.3
    """Least confidence of a candidate."""
    text_threshold: Annotated[float, Bounds(0, 1)] = 0.25
    """Least match between a box of GroundingDINO and a word of the noun that the sentence is
    about."""
    candidates: Annotated[int, Bounds(1, 100)] = 10
    """Most candidates of a sentence in a photo."""
    views: Annotated[tuple[str, ...], ANYWHERE] = ()
    """Photos to mask, by name or frame number; without, all."""
    images: str = "images"
    """Folder of the photos in the scene."""
    device: Annotated[str, ANYWHERE] = "auto"
    """Device of the computation."""


def read_options(argv: Sequence[str]) -> MasksConfig:
    """Reads the options.

    Raises:
        InputError: The scene or the sentences are not named, or a value is out of bounds.
    """
    config = parse(MasksConfig, argv, program="refersplat masks", description=DESCRIPTION)
    if not config.scene:
        raise InputError(
            "refersplat masks: expected the folder of a scene, got nothing; "
            "refersplat masks SCENE --sentences FILE"
        )
    if not config.sentences:
        raise InputError(
            "--sentences: expected a file of sentences, got nothing; write one per line into a "
            "text file, and add --sentences FILE"
        )
    return config
