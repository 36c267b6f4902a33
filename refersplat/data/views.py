"""Views of a scene: photos with their cameras and the objects that sentences name in them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from refersplat.cameras import Camera
from refersplat.data.annotations import Annotation, Mask
from refersplat.data.images import PixelCache, decode
from refersplat.data.lens import Lens, Warp

_AHEAD = 4
_NUM_DECODERS = 2


@dataclass(frozen=True, eq=False)
class ReferredObject:
    """One object in one view: the sentences about it, and its masks."""

    annotation: Annotation
    _warp: Warp = field(repr=False)
    _cache: PixelCache = field(repr=False)

    @property
    def category(self) -> str | None:
        """Name of the object's kind; None where the dataset has none."""
        return self.annotation.category

    @property
    def sentences(self) -> tuple[str, ...]:
        """The sentences that refer to the object in this view."""
        return self.annotation.sentences

    @property
    def is_nothing(self) -> bool:
        """Whether its sentences mean nothing in the view."""
        return self.annotation.mask is None

    def mask(self) -> Tensor:  # [H, W] bool
        """The visible pixels of the object, at the camera's size; may be empty."""
        if self.annotation.mask is None:
            return torch.zeros(self._warp.height, self._warp.width, dtype=torch.bool)
        return self._read(self.annotation.mask)

    def boxes(self) -> list[tuple[int, int, int, int]]:
        """Left, top, right and bottom pixel, inclusive, of each visible part of the object.

        A part is an outline, or the whole mask of a file.
        """
        mask = self.annotation.mask
        parts = [self._read(part) for part in mask.parts()] if mask else []
        pixels = [part.nonzero().flip(1) for part in parts if part.any()]  # x, y
        return [(*xy.amin(dim=0).tolist(), *xy.amax(dim=0).tolist()) for xy in pixels]

    def amodal_mask(self) -> Tensor | None:  # [H, W] bool
        """The whole silhouette, occluded parts included; None where the dataset has none."""
        amodal = self.annotation.amodal
        return None if amodal is None else self._read(amodal)

    def _read(self, mask: Mask) -> Tensor:
        warp = self._warp
        # One bit a pixel: a scene has many more masks than images.
        bits = self._cache.get((mask, warp), lambda: np.packbits(warp.mask(mask.read()), axis=1))
        return torch.from_numpy(np.unpackbits(bits, axis=1, count=warp.width).astype(bool))


@dataclass(frozen=True, eq=False)
class View:
    """One photo with its camera."""

    name: str
    """The file's stem, or its path with underscores where stems are not unique."""
    camera: Camera
    """Camera of the image that :meth:`image` returns: resized and without distortion."""
    path: Path
    """The photo's file."""
    objects: tuple[ReferredObject, ...]
    background: float
    """Gray behind transparent pixels, 0 black to 1 white."""
    _warp: Warp = field(repr=False)
    _cache: PixelCache = field(repr=False)

    @property
    def lens(self) -> Lens:
        """Lens of the photo as its file holds it, distortion included."""
        return self._warp.lens

    def image(self) -> Tensor:  # [3, H, W]
        """The photo in 0..1, on the background; decoded at first use, then cached."""
        pixels = torch.from_numpy(self._pixels()).permute(2, 0, 1)
        image = pixels[:3].to(torch.float32, memory_format=torch.contiguous_format) / 255
        if pixels.shape[0] == 4 and self.background:
            image += self.background * (1 - pixels[3] / 255)
        return image

    def alpha(self) -> Tensor | None:  # [H, W]
        """Opacity of the photo's pixels in 0..1; None if all are opaque."""
        pixels = self._pixels()
        return torch.from_numpy(pixels[..., 3] / np.float32(255)) if pixels.shape[2] == 4 else None

    def to_photo(self, values: np.ndarray) -> np.ndarray:  # [H, W] float32 -> [h, w] float32
        """Values of the view's pixels, such as a mask's, at the pixels of the photo's file."""
        return self._warp.photo(values)

    def _pixels(self) -> np.ndarray:  # [H, W, 3 or 4] uint8, colours multiplied by alpha
        return self._cache.get((self.path, self._warp), lambda: self._warp.image(decode(self.path)))


def load_ahead(
    views: Iterable[View], device: torch.device | str = "cpu"
) -> Iterator[tuple[View, Tensor]]:
    """Yields each view with its image on ``device``; threads decode the next ones meanwhile.

    Images for a GPU are pinned, so that their copies do not block.
    """
    device = torch.device(device)

    def load(view: View) -> Tensor:
        image = view.image()
        return image.pin_memory() if device.type == "cuda" else image

    with ThreadPoolExecutor(_NUM_DECODERS) as pool:
        waiting = deque()
        for view in views:
            waiting.append((view, pool.submit(load, view)))
            if len(waiting) > _AHEAD:
                first, image = waiting.popleft()
                yield first, image.result().to(device, non_blocking=True)
        for view, image in waiting:
            yield view, image.result().to(device, non_blocking=True)
