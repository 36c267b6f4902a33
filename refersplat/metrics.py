"""Metrics of masks: one function each, in one table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

THRESHOLDS = torch.linspace(0, 1, 101)[1:-1]
"""[99] candidate thresholds: 0.01, 0.02, … 0.99."""
EMPTY = 20
"""Pixels from which on a mask counts as one; where nothing is meant, fewer are right."""


def iou(
    prediction: Tensor,  # [H, W] bool
    truth: Tensor,  # [H, W] bool
) -> float:
    """Intersection over union; 1 where both masks are empty, 0 where only one is."""
    union = int((prediction | truth).sum())
    return int((prediction & truth).sum()) / union if union else 1.0


def accuracy(least: float) -> Callable[[Tensor, Tensor], float]:
    """The metric that is 1 where the IoU is at least ``least``, else 0."""
    return lambda prediction, truth: float(iou(prediction, truth) >= least)


METRICS: dict[str, Callable[[Tensor, Tensor], float]] = {
    "mIoU": iou,
    "acc@0.25": accuracy(0.25),
    "acc@0.5": accuracy(0.5),
}
"""The metrics of the evaluation, from a predicted and a true mask ([H, W] bool) to a number. To add
one, add a function here: ``results.json`` then holds its mean over the samples."""


def score(
    prediction: Tensor,  # [H, W] bool
    truth: Tensor,  # [H, W] bool
) -> dict[str, float]:
    """Every metric of one predicted mask."""
    return {name: metric(prediction, truth) for name, metric in METRICS.items()}


def mean_scores(scores: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each metric over the samples; NaN where there are none."""
    rows = list(scores)
    return {name: mean([row[name] for row in rows]) for name in METRICS}


def mean(values: Sequence[float]) -> float:
    """The mean in float64; NaN of no values."""
    return float(torch.tensor(values, dtype=torch.float64).mean())


class Overlap(NamedTuple):
    """Pixels of a predicted mask and of all that a sentence means in a view."""

    both: int
    predicted: int
    true: int

    @classmethod
    def of(
        cls,
        prediction: Tensor,  # [H, W] bool
        truth: Tensor,  # [H, W] bool
    ) -> Overlap:
        """Counts the pixels."""
        return cls(*(int(x.sum()) for x in (prediction & truth, prediction, truth)))

    @property
    def either(self) -> int:
        """Pixels of the union."""
        return self.predicted + self.true - self.both

    @property
    def score(self) -> float:
        """IoU; without a true pixel, 1 for fewer than ``EMPTY`` predicted ones, else 0."""
        return self.both / self.either if self.true else float(self.predicted < EMPTY)


def generalized(overlaps: Sequence[Overlap]) -> dict[str, float | None]:
    """Metrics of generalised referring segmentation (GRES, Liu et al. 2023).

    Returns:
        gIoU: Mean score of the sentences.
        cIoU: All intersections over all unions; NaN where these are empty.
        N-acc: Share of rightly empty masks among sentences without a true pixel; None if all have
            one.
    """
    union = sum(overlap.either for overlap in overlaps)
    empty = [overlap.score for overlap in overlaps if not overlap.true]
    return {
        "gIoU": mean([overlap.score for overlap in overlaps]),
        "cIoU": sum(overlap.both for overlap in overlaps) / union if union else float("nan"),
        "N-acc": mean(empty) if empty else None,
    }


def iou_curve(
    probabilities: Tensor,  # [H, W]
    truth: Tensor,  # [H, W] bool
    thresholds: Tensor = THRESHOLDS,  # [K] ascending
) -> Tensor:  # [K]
    """:func:`iou` of the pixels at or above each threshold, in one pass over the pixels."""
    bins = torch.bucketize(probabilities.flatten(), thresholds, right=True)
    everything, inside = (
        torch.bincount(part, minlength=len(thresholds) + 1).flip(0).cumsum(0).flip(0)[1:]
        for part in (bins, bins[truth.flatten()])
    )
    union = everything + truth.sum() - inside
    return torch.where(union == 0, 1.0, inside / union.clamp(min=1))
