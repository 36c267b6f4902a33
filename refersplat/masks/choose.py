"""The candidate mask that agrees most with the others, weighed by confidence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

SAME = 0.95
"""IoU from which on two masks of one sentence are one detection, made twice."""
_BLOCK = 1 << 20  # pixels; their products are exact in float32


@dataclass(frozen=True, eq=False)
class Candidate:
    """A mask that may be the object's."""

    mask: np.ndarray
    """[H, W] bool."""
    confidence: float
    """In 0..1."""


class Choice(NamedTuple):
    """The candidate that is kept."""

    mask: np.ndarray
    """[H, W] bool."""
    confidence: float
    agreement: float
    """Mean weighted IoU with the other candidates, in 0..1; 1 if there is no other."""


def distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Leaves out empty masks, and of nearly equal ones all but the most confident.

    A detector that reports a box twice does not agree with itself: the candidates of one sentence
    are to be passed, those of several sentences are independent.
    """
    ranked = _rank(candidate for candidate in candidates if candidate.mask.any())
    overlaps = weighted_ious([Candidate(item.mask, 1.0) for item in ranked])
    kept: list[int] = []
    for index in range(len(ranked)):
        if all(overlaps[index, other] < SAME for other in kept):
            kept.append(index)
    return [ranked[index] for index in kept]


def choose(candidates: Sequence[Candidate]) -> Choice | None:
    """Chooses argmax_k Σ_j IoU(γ_k M_k, γ_j M_j); see He et al. (2025), pseudo masks.

    M is a mask and γ its confidence. Of equal sums the more confident one wins, then the larger.
    None without candidates. Their order does not matter.
    """
    if not candidates:
        return None
    ranked = _rank(candidates)
    overlaps = weighted_ious(ranked)
    np.fill_diagonal(overlaps, 0)  # IoU(k, k) = 1 changes no argmax
    sums = overlaps.sum(axis=1)
    best = int(sums.argmax())  # the first of equal ones
    agreement = float(sums[best]) / (len(ranked) - 1) if len(ranked) > 1 else 1.0
    return Choice(ranked[best].mask, ranked[best].confidence, agreement)


def weighted_ious(candidates: Sequence[Candidate]) -> np.ndarray:  # [K, K] float64
    """IoU of masks weighed by their confidence: the sum of pixels' minima over that of maxima."""
    if not candidates:
        return np.zeros((0, 0))
    pixels = np.stack([candidate.mask.ravel() for candidate in candidates])
    weights = np.array([candidate.confidence for candidate in candidates])
    both = np.zeros((len(pixels),) * 2)
    for start in range(0, pixels.shape[1], _BLOCK):
        block = pixels[:, start : start + _BLOCK].astype(np.float32)
        both += block @ block.T
    alone = np.diagonal(both)[:, None] - both  # [k, j] pixels of k outside j
    low = np.minimum(weights[:, None], weights) * both
    high = np.maximum(weights[:, None], weights) * both
    union = (weights[:, None] * alone + (weights[:, None] * alone).T) + high
    return np.divide(low, union, out=np.zeros_like(low), where=union > 0)


def _rank(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Sorts by confidence, then size, then content: one order whatever was given."""

    def key(item: Candidate) -> tuple[float, int, bytes]:
        return -item.confidence, -int(item.mask.sum()), np.packbits(item.mask).tobytes()

    return sorted(candidates, key=key)
