"""What the referring stage learns from: sentences, masks, and the views' frozen rendering."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from refer3d.runs.device import free_memory, to_device
from refer3d.runs.errors import InputError
from refersplat.data import ReferredObject, Scene, View
from refersplat.ops import BlendMatrix
from refersplat.splats.gaussians import Gaussians
from refersplat.splats.render import frozen_blend

log = logging.getLogger(__name__)


@functools.cache
def _eight_pixels(device: torch.device | str) -> Tensor:  # [256]
    """The bits of every byte, as eight bytes that are looked up at once."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    return torch.from_numpy(bits.view(np.int64)[:, 0]).to(device)


class Target(NamedTuple):
    """One object that a view shows."""

    sentences: list[int]
    """Rows of ``Supervision.sentences``."""
    mask: np.ndarray
    """Its pixels, eight to a byte along the rows."""


class Lesson(NamedTuple):
    """A view with the objects that are learned from it."""

    view: View
    targets: list[Target]

    def masks(self, chosen: Sequence[int], device: torch.device | str) -> Tensor:
        """The masks [B, H, W] of some targets, unpacked where they are needed."""
        packed = np.stack([self.targets[index].mask for index in chosen])
        bytes_ = to_device(torch.from_numpy(packed), device)
        pixels = _eight_pixels(device)[bytes_.int()].view(torch.bool)  # [B, H, 8 ceil(W / 8)]
        return pixels[..., : self.view.camera.width]


@dataclass(frozen=True)
class Supervision:
    """The training views' sentences and masks."""

    sentences: list[str]
    """Every training sentence once."""
    lessons: list[Lesson]
    """Views to learn from."""
    aside: list[Lesson]
    """Views that are kept out of training, to choose the threshold on."""


def supervise(scene: Scene, keep_aside: int) -> Supervision:
    """Collects the sentences and masks of the training views.

    A mask without a pixel is left out: in a training view it means that a detector found nothing.

    Args:
        scene: Whose training views are used.
        keep_aside: Every so many views, one is kept out of training; 0 keeps none.

    Raises:
        InputError: No training view has a sentence with a mask.
    """
    sentences: dict[str, int] = {}
    lessons = []
    for view in scene.train:
        targets = [target for item in view.objects if (target := _target(item, sentences))]
        if targets:
            lessons.append(Lesson(view, targets))
    if not lessons:
        raise InputError(
            f"{scene.path}: no training view has a sentence with a mask; the referring stage needs "
            "json/<image>.json and gt_mask/ (see docs/refersplat.md)"
        )
    aside: list[Lesson] = []
    if keep_aside and len(lessons) >= 4:
        first = min(keep_aside, len(lessons)) // 2
        aside = lessons[first::keep_aside]
        names = {lesson.view.name for lesson in aside}
        lessons = [lesson for lesson in lessons if lesson.view.name not in names]
    return Supervision(list(sentences), lessons, aside)


def _target(item: ReferredObject, sentences: dict[str, int]) -> Target | None:
    mask = item.mask()
    if not item.sentences or not mask.any():
        return None
    rows = [sentences.setdefault(sentence, len(sentences)) for sentence in item.sentences]
    return Target(rows, np.packbits(mask.numpy(), axis=1))


class Blends:
    """The views' blend matrices: kept while they fit the memory, else built when needed.

    Views are visited in turn, where keeping the latest would throw away each one just before it is
    needed again. So the first that fit stay.
    """

    def __init__(self, gaussians: Gaussians, gigabytes: float = -1.0) -> None:
        """Sets a budget; -1 takes a quarter of the memory that is free now."""
        free = free_memory(gaussians.means.device) / 4
        self.gaussians = gaussians
        self.budget = int(free if gigabytes < 0 else gigabytes * 2**30)
        self.kept: dict[str, BlendMatrix] = {}

    def __call__(self, view: View) -> BlendMatrix:
        """The view's matrix."""
        if (blend := self.kept.get(view.name)) is not None:
            return blend
        blend = frozen_blend(self.gaussians, view.camera)
        if not len(blend.gaussians):
            log.warning("%s sees no Gaussian, so nothing is learned from it", view.name)
        if blend.nbytes <= self.budget:
            self.budget -= blend.nbytes
            self.kept[view.name] = blend
        return blend
