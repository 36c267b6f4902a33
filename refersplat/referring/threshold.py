"""Probabilities of pixels, and the threshold that makes masks of them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from refersplat.metrics import THRESHOLDS, iou_curve


def mask_probabilities(
    logits: Tensor,  # [B, H, W]
    transmittance: Tensor,  # [H, W]
) -> Tensor:  # [B, H, W]
    """Converts rendered logits to the probability that a pixel shows the object.

    Where no Gaussian is, a rendered logit is 0, which alone would mean one half: light that passes
    all Gaussians shows the background instead.
    """
    return logits.sigmoid() * (1 - transmittance)


def choose_threshold(pairs: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """Chooses the threshold with the best mean IoU.

    Of the thresholds that are nearly as good as the best, it takes the middle one: a plateau's edge
    would not hold on other views.

    Args:
        pairs: Probabilities [H, W] and true masks [H, W] bool of held-out views.

    Returns:
        threshold: 0.5 where there are no pairs.
        mean_iou: Mean IoU at the threshold; NaN where there are no pairs.
    """
    ious = [iou_curve(probabilities, mask) for probabilities, mask in pairs]
    if not ious:
        return 0.5, float("nan")
    mean = torch.stack(ious).mean(dim=0)
    good = (mean >= mean.max() - 0.002).nonzero()[:, 0]
    best = int(good[len(good) // 2])
    return round(float(THRESHOLDS[best]), 2), float(mean[best])
