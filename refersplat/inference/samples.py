"""Test cases: one sentence about one object in one view, asked and compared with the truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from refer3d.runs.progress import Progress
from refersplat.data import ReferredObject, View
from refersplat.inference.trained_scene import TrainedScene
from refersplat.language.answer import NO_GROUP
from refersplat.metrics import THRESHOLDS, iou, iou_curve
from refersplat.ops import BlendMatrix


@dataclass(frozen=True)
class Sample:
    """One sentence about one object in one view, and how well it was answered."""

    view: View
    target: ReferredObject
    sentence: str
    group: int | None
    """The group of Gaussians that answered; None where the field did."""
    iou: float
    curve: Tensor
    """[99] IoU at each of ``THRESHOLDS``."""
    is_empty: bool
    """The object is not seen in the view."""
    amodal_iou: float | None
    """Of the through view, where the whole silhouette is known."""

    @property
    def category(self) -> str:
        """The object's name, or the first sentence about it."""
        return self.target.category or self.target.sentences[0]

    @property
    def iou_at_half(self) -> float:
        """IoU with the threshold 0.5."""
        return float(self.curve[len(THRESHOLDS) // 2])


@torch.inference_mode()
def answer_all(
    trained: TrainedScene,
    views: Sequence[View],
    sentences_of: Callable[[ReferredObject], Sequence[str]],
    amodal: bool = False,
) -> Iterator[Sample]:
    """Asks about every object of every view.

    Args:
        trained: The trained scene.
        views: Where to look.
        sentences_of: What to ask about an object.
        amodal: Also compare the through view with the whole silhouette.
    """
    with Progress("views", len(views)) as progress:
        for view in views:
            blend = trained.view(view.camera)
            for target in view.objects:
                if sentences := sentences_of(target):
                    yield from answer(trained, view, blend, target, sentences, amodal)
            progress.advance()


def answer(
    trained: TrainedScene,
    view: View,
    blend: BlendMatrix,
    target: ReferredObject,
    sentences: Sequence[str],
    amodal: bool,
) -> Iterator[Sample]:
    """Asks about one object in one view."""
    asked = trained.respond(sentences)
    truth, silhouette = target.mask(), target.amodal_mask() if amodal else None
    through: Sequence[Tensor | None] = [None] * len(sentences)
    if silhouette is not None:
        through = trained.amodal(asked, view.camera).cpu()
    seen_by_sentence = trained.seen(asked, blend).cpu()
    for sentence, group, threshold, seen, whole in zip(
        sentences, asked.groups, asked.thresholds, seen_by_sentence, through, strict=True
    ):
        yield Sample(
            view=view,
            target=target,
            sentence=sentence,
            group=None if group == NO_GROUP else group,
            iou=iou(seen >= threshold, truth),
            curve=iou_curve(seen, truth),
            is_empty=not truth.any(),
            amodal_iou=None if whole is None else iou(whole >= threshold, silhouette),
        )
