"""Supervision of the referring stage: sentences, masks, and the views' blend matrices."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from refer3d.runs.device import free_memory
from refer3d.runs.errors import InputError
from refersplat.config import Config
from refersplat.data import Scene, View
from refersplat.data.supervised import SupervisedView, Target
from refersplat.language.groups import Groups
from refersplat.ops import BlendMatrix
from refersplat.splats.gaussians import Gaussians
from refersplat.splats.render import frozen_blend

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Supervision:
    """The training views' sentences and masks."""

    sentences: list[str]
    """Every training sentence once."""
    categories: list[str | None]
    """The most frequent category of each sentence's objects."""
    views: list[SupervisedView]
    """Views that train the field."""
    held_out: list[SupervisedView]
    """Views that choose the threshold."""


def supervise(scene: Scene, hold_out_every: int) -> Supervision:
    """Collects the sentences and masks of the training views.

    A mask without a pixel is left out: in a training view it means that a detector missed the
    object. So are sentences that mean nothing there. A sentence of several objects has the union of
    their masks.

    Args:
        scene: Scene whose training views are used.
        hold_out_every: Hold out every n-th view; 0 holds out none.

    Raises:
        InputError: No training view has a sentence with a mask.
    """
    sentences: dict[str, int] = {}
    views = []
    categories: dict[str, Counter[str | None]] = defaultdict(Counter)
    for view in scene.train:
        if targets := _targets(view, sentences):
            views.append(SupervisedView(view.name, view.camera, targets))
            for item in view.objects:
                for text in item.sentences:
                    categories[text][item.category] += 1
    if not views:
        raise InputError(
            f"{scene.path}: no training view has a sentence with a mask; the referring stage needs "
            "json/<image>.json and gt_mask/ (see docs/refersplat.md)"
        )
    held_out: list[SupervisedView] = []
    if hold_out_every and len(views) >= 4:
        held_out = views[min(hold_out_every, len(views)) // 2 :: hold_out_every]
        names = {view.name for view in held_out}
        views = [view for view in views if view.name not in names]
    named = [categories[text].most_common(1)[0][0] for text in sentences]
    return Supervision(list(sentences), named, views, held_out)


def _targets(view: View, sentences: dict[str, int]) -> list[Target]:
    """The sets of objects that the view's sentences mean; adds new sentences to ``sentences``."""
    masks = [(item.sentences, mask) for item in view.objects if (mask := item.mask()).any()]
    meant: dict[str, list[int]] = {}
    for index, (texts, _) in enumerate(masks):
        for text in dict.fromkeys(texts):
            meant.setdefault(text, []).append(index)
    rows: dict[tuple[int, ...], list[int]] = {}
    for text, indices in meant.items():
        rows.setdefault(tuple(indices), []).append(sentences.setdefault(text, len(sentences)))
    return [
        Target(rows_of, _pack([masks[index][1] for index in indices]), len(indices))
        for indices, rows_of in rows.items()
    ]


def _pack(masks: list[Tensor]) -> np.ndarray:  # [H, ceil(W / 8)] uint8
    return np.packbits(torch.stack(masks).any(dim=0).numpy(), axis=1)


def hold_out_sentences(groups: Groups, seed: int) -> tuple[int, ...]:
    """Chooses one sentence of each object that has more than two."""
    rng = np.random.default_rng((seed, 1))
    return tuple(int(rng.choice(rows)) for rows in groups.sentences if len(rows) > 2)


def without_sentences(views: list[SupervisedView], rows: tuple[int, ...]) -> list[SupervisedView]:
    """Removes some sentences, and the targets and views that have no other."""
    remaining = []
    for view in views:
        kept = (
            target._replace(sentences=[row for row in target.sentences if row not in rows])
            for target in view.targets
        )
        if targets := [target for target in kept if target.sentences]:
            remaining.append(replace(view, targets=targets))
    return remaining


def sample_batch(
    config: Config, stage: int, place: int, views: list[SupervisedView]
) -> tuple[SupervisedView, list[tuple[int, int]]]:
    """Samples a view, and (target, sentence) pairs of it.

    All views come once before one comes again. The choice depends only on the seed and on the
    number of views before this one, so that a resumed run repeats it.
    """
    epoch, turn = divmod(place, len(views))
    order = np.random.default_rng((config.seed, stage, epoch)).permutation(len(views))
    view = views[order[turn]]
    rng = np.random.default_rng((config.seed, stage, 0, place))
    count = min(len(view.targets), config.train.sentences_per_step)
    targets = rng.permutation(len(view.targets))[:count]
    return view, [(int(i), int(rng.choice(view.targets[i].sentences))) for i in targets]


class BlendCache:
    """Blend matrices of views, kept while they fit the memory and built again otherwise.

    Views are visited in turn, where keeping the latest would throw away each one just before it is
    needed again. So the first that fit stay.
    """

    def __init__(self, gaussians: Gaussians, gigabytes: float = -1.0) -> None:
        """Sets the budget; -1 takes a quarter of the memory that is free now."""
        free = free_memory(gaussians.means.device) / 4
        self.gaussians = gaussians
        self.budget = int(free if gigabytes < 0 else gigabytes * 2**30)
        self.kept: dict[str, BlendMatrix] = {}

    def __call__(self, view: View | SupervisedView) -> BlendMatrix:
        """Returns the view's matrix."""
        if (blend := self.kept.get(view.name)) is not None:
            return blend
        blend = frozen_blend(self.gaussians, view.camera)
        if not len(blend.gaussians):
            log.warning("%s sees no Gaussian, so it trains nothing", view.name)
        if blend.nbytes <= self.budget:
            self.budget -= blend.nbytes
            self.kept[view.name] = blend
        return blend
