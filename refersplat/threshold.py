"""From rendered responses to masks."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

CANDIDATES = 99
"""Thresholds that are tried: 0.01, 0.02, … 0.99."""


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
    edges = torch.linspace(0, 1, CANDIDATES + 2)[1:-1]
    ious = []
    for probabilities, mask in pairs:
        bins = torch.bucketize(probabilities.flatten(), edges, right=True)
        # Pixels at or above each candidate, from the counts between candidates.
        counts = [
            torch.bincount(part, minlength=CANDIDATES + 1).flip(0).cumsum(0).flip(0)[1:]
            for part in (bins, bins[mask.flatten()])
        ]
        union = counts[0] + mask.sum() - counts[1]
        ious.append(counts[1] / union.clamp(min=1))
    if not ious:
        return 0.5, float("nan")
    mean = torch.stack(ious).mean(dim=0)
    good = (mean >= mean.max() - 0.002).nonzero()[:, 0]
    best = int(good[len(good) // 2])
    return round(float(edges[best]), 2), float(mean[best])
