"""Evaluation samples: one sentence about one object in one view, with its scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from refer3d.runs.progress import Progress
from refersplat.data import ReferredObject, View
from refersplat.inference.trained_scene import TrainedScene
from refersplat.metrics import THRESHOLDS, Overlap, iou, iou_curve, score
from refersplat.ops import BlendMatrix


@dataclass(frozen=True)
class Sample:
    """One sentence about one object in one view, and the scores of its mask."""

    view: View
    target: ReferredObject
    sentence: str
    groups: tuple[int, ...] | None
    """The groups of Gaussians that responded; None where the field did."""
    scores: dict[str, float]
    """Each of ``METRICS``."""
    curve: Tensor
    """[99] IoU at each of ``THRESHOLDS``."""
    is_empty: bool
    """Whether the object is hidden or outside the view."""
    amodal_iou: float | None
    """IoU of the amodal mask, where the whole silhouette is known."""

    @property
    def category(self) -> str:
        """The object's name, or the first sentence about it."""
        return self.target.category or self.target.sentences[0]

    @property
    def iou(self) -> float:
        """IoU at the chosen threshold."""
        return self.scores["mIoU"]

    @property
    def iou_at_half(self) -> float:
        """IoU at the threshold 0.5."""
        return float(self.curve[len(THRESHOLDS) // 2])


@torch.inference_mode()
def evaluate_views(
    trained: TrainedScene,
    views: Sequence[View],
    sentences_of: Callable[[ReferredObject], Sequence[str]],
    amodal: bool = False,
) -> tuple[list[Sample], list[Overlap]]:
    """Evaluates sentences about every object of every view.

    Args:
        trained: The trained scene.
        views: Views with true masks.
        sentences_of: Returns the sentences about an object.
        amodal: Also score amodal masks, where the scene has whole silhouettes.

    Returns:
        samples: Each sentence about each object.
        overlaps: Each sentence of each view once, against all objects that it means there; those
            that mean nothing included.
    """
    samples, overlaps = [], []
    with Progress("views", len(views)) as progress:
        for view in views:
            blend = trained.blend(view.camera)
            masks: dict[str, tuple[Tensor, Tensor]] = {}
            for target in view.objects:
                truth, sentences = target.mask(), sentences_of(target)
                for sample, mask in _evaluate(trained, view, blend, target, sentences, amodal):
                    samples += [] if target.is_nothing else [sample]
                    _, others = masks.get(sample.sentence, (mask, truth))
                    masks[sample.sentence] = mask, truth | others
            overlaps += [Overlap.of(*pair) for pair in masks.values()]
            progress.advance()
    return samples, overlaps


def _evaluate(
    trained: TrainedScene,
    view: View,
    blend: BlendMatrix,
    target: ReferredObject,
    sentences: Sequence[str],
    amodal: bool,
) -> Iterator[tuple[Sample, Tensor]]:
    """Yields each sentence's sample and mask."""
    if not sentences:
        return
    responses = trained.respond(sentences, view.camera)
    truth, silhouette = target.mask(), target.amodal_mask() if amodal else None
    amodal_ious: list[float | None] = [None] * len(sentences)
    if silhouette is not None:
        images = trained.amodal(responses, view.camera).cpu()
        amodal_ious = [
            iou(image >= threshold, silhouette)
            for image, threshold in zip(images, responses.thresholds, strict=True)
        ]
    for image, sentence, result, threshold, amodal_iou in zip(
        trained.visible(responses, blend).cpu(),
        *(sentences, responses.results, responses.thresholds, amodal_ious),
        strict=True,
    ):
        mask = image >= threshold
        sample = Sample(
            view=view,
            target=target,
            sentence=sentence,
            groups=result.groups if result else None,
            scores=score(mask, truth),
            curve=iou_curve(image, truth),
            is_empty=not truth.any(),
            amodal_iou=amodal_iou,
        )
        yield sample, mask
