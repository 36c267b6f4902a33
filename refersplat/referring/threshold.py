"""From rendered responses to masks."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from refersplat.metrics import THRESHOLDS, iou_curve


def mask_probabilities(
    logits: Tensor,  # [B, H, W]
    transmittance: Tensor,  # [H, W]
) -> Tensor:  # [B, H, W]
    """How probable it is that a pixel shows what the sentence means.

    Where no Gaussian is, a rendered logit is 0, which alone would mean one half: light that goes
    through all Gaussians shows the background instead.
    """
    return logits.sigmoid() * (1 - transmittance)


def choose_threshold(pairs: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """The threshold with the best mean IoU.

    Of the thresholds that are nearly as good as the best, the middle one is taken: a plateau's edge
    would not hold on other views.

    Args:
        pairs: Probabilities [H, W] and true masks [H, W] bool, which must come from views that
            neither trained the field nor test it.

    Returns:
        threshold: 0.5 where there are no pairs.
        mean_iou: What it reaches; NaN where there are no pairs.
    """
    ious = [iou_curve(probabilities, mask) for probabilities, mask in pairs]
    if not ious:
        return 0.5, float("nan")
    mean = torch.stack(ious).mean(dim=0)
    good = (mean >= mean.max() - 0.002).nonzero()[:, 0]
    best = int(good[len(good) // 2])
    return round(float(THRESHOLDS[best]), 2), float(mean[best])
