"""Annotations of photos (sentences about an object, its mask) and datasets that hold them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np

from refersplat.data.images import decode_mask, read_size
from refersplat.data.names import ViewNames


@dataclass(frozen=True)
class MaskFile:
    """A mask in an image file."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def size(self) -> tuple[int, int]:
        """Width and height in pixels; raises InputError if the file is no whole image."""
        return read_size(self.path)

    def read(self) -> np.ndarray:  # [h, w] bool
        """Decodes the file; raises InputError if it holds no mask."""
        return decode_mask(self.path)

    def parts(self) -> tuple[MaskFile, ...]:
        """The mask itself: a file does not tell parts apart."""
        return (self,)


@dataclass(frozen=True)
class Polygons:
    """A mask of filled outlines."""

    outlines: tuple[tuple[tuple[float, float], ...], ...]
    """Corners x, y of each outline, in pixels whose centres lie at integers."""
    width: int
    height: int

    def __str__(self) -> str:
        return f"{len(self.outlines)} outlines"

    def size(self) -> tuple[int, int]:
        """Width and height of the photo that the outlines were drawn on."""
        return self.width, self.height

    def read(self) -> np.ndarray:  # [h, w] bool
        """Draws the outlines, their borders included."""
        mask = np.zeros((self.height, self.width), dtype=np.uint8)
        for outline in self.outlines:
            cv2.fillPoly(mask, [np.array(outline).round().astype(np.int32)], 1)
        return mask > 0

    def parts(self) -> tuple[Polygons, ...]:
        """Each outline as a mask of its own."""
        return tuple(replace(self, outlines=(outline,)) for outline in self.outlines)


Mask = MaskFile | Polygons
"""A mask that is read late."""


@dataclass(frozen=True)
class Annotation:
    """One object in one photo."""

    category: str | None
    sentences: tuple[str, ...]
    mask: Mask | None
    """The visible pixels; None where the sentences mean nothing in the photo."""
    where: str
    """File and field, for messages."""
    amodal: Mask | None = None
    """The whole silhouette, occluded parts included."""


@dataclass(frozen=True)
class Dataset:
    """A format of referring sentences."""

    name: str
    detects: Callable[[Path], bool]
    """Whether a scene's folder has this format."""
    read: Callable[..., Mapping[str, Sequence[Annotation]]]
    """``read(folder, views, *, test, masks, warnings)`` returns the annotations by view name.
    ``views`` finds a view's name, ``test`` is the set of test views, ``masks`` the option
    ``--data.masks``; ``warnings`` is a list to append to."""
    test_views: Callable[[Path, ViewNames], set[str]] = lambda folder, views: set()
    """Test views by the files themselves; empty if they do not say."""
    test_frames: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Published frame numbers of the test views, by the scene's folder name in lower case."""
    is_open_vocabulary: bool = False
    """Whether sentences are names of categories, to be scored by the protocols of open-vocabulary
    segmentation, too."""

    @property
    def key(self) -> str:
        """Value of the option ``--data.dataset``."""
        return self.name.lower().replace("-", "_")
