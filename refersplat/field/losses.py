"""Losses of the referring stage."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def mask_loss(
    logits: Tensor,  # [B, H, W]
    masks: Tensor,  # [B, H, W] bool
) -> Tensor:  # []
    """Binary cross-entropy of rendered responses, over all pixels."""
    return F.binary_cross_entropy_with_logits(logits, masks.to(logits.dtype))


def contrastive_loss(
    means: Tensor,  # [B, D]
    sentences: Tensor,  # [M, D]
    positives: Tensor,  # [B, M] bool
    temperature: float = 0.1,
) -> Tensor:  # []
    """Draws the Gaussians that answer a sentence to all sentences of the same object.

    Every positive is compared with every negative: log(1 + Σ⁻ exp(s⁻) Σ⁺ exp(−s⁺)), where s is the
    cosine over the temperature. With one positive this is the usual cross-entropy.

    Args:
        means: The mean of the answering Gaussians, for each sentence of the step.
        sentences: The mean of the words, for each sentence of the view.
        positives: Which of the view's sentences speak of the same object.
        temperature: Smaller is sharper.
    """
    similarity = F.normalize(means, dim=1) @ F.normalize(sentences, dim=1).T / temperature
    # Finite, so that a row without negatives has no loss and a gradient of zero instead of NaN.
    never = torch.finfo(similarity.dtype).min / 4
    negative = similarity.masked_fill(positives, never).logsumexp(dim=1)
    positive = (-similarity).masked_fill(~positives, never).logsumexp(dim=1)
    return F.softplus(negative + positive).mean()


def selection_ratio(
    step: int, start: float = 0.1, factor: float = 0.6, every: int = 2_000, floor: float = 0.005
) -> float:
    """The share of Gaussians that count as answering; it narrows as responses become sure."""
    return max(start * factor ** (step // every), floor)


def select_answering(
    responses: Tensor,  # [B, N]
    ratio: float,
) -> Tensor:  # [B, K]
    """The Gaussians that respond most to each sentence."""
    count = max(1, int(ratio * responses.shape[1]))
    return responses.detach().topk(count, dim=1, sorted=False).indices
