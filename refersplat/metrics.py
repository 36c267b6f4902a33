"""How well masks agree with the truth."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

THRESHOLDS = torch.linspace(0, 1, 101)[1:-1]
"""[99] thresholds that are tried: 0.01, 0.02, … 0.99."""


def iou(
    prediction: Tensor,  # [H, W] bool
    truth: Tensor,  # [H, W] bool
) -> float:
    """Intersection over union.

    Where nothing is to be found, nothing must be: 1 if both are empty, 0 if only the truth is.
    """
    union = int((prediction | truth).sum())
    return int((prediction & truth).sum()) / union if union else 1.0


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


def summarize(ious: Sequence[float]) -> dict[str, float]:
    """Mean IoU, and the share of cases that reach 0.25 and 0.5; NaN where there are none."""
    values = torch.tensor(list(ious), dtype=torch.float64)
    return {
        "mIoU": float(values.mean()),
        "acc@0.25": float((values >= 0.25).double().mean()),
        "acc@0.5": float((values >= 0.5).double().mean()),
    }
