"""What can be measured of superpoints, so that it need not be learned."""

from __future__ import annotations

import torch
from torch import Tensor

from detailbase.ops import segment_reduce

NUM_FACTS = 13


def moments(
    points: Tensor,  # [N, 6]
    superpoints: Tensor,  # [N]
    count: int,
) -> Tensor:  # [S, 13]
    """Sums over each superpoint's colours and places, their squares, and ones.

    The moments of several superpoints together are the sum of theirs.
    """
    ones = points.new_ones(len(points), 1)
    return segment_reduce(torch.cat([points, points.square(), ones], dim=1), superpoints, count)


def facts(sums: Tensor) -> Tensor:  # [S, 13] -> [S, 13]
    """Mean and deviation of colour and place, and the logarithm of the size, from moments."""
    size = sums[:, -1:].clamp(min=1)
    mean, square = (sums[:, :-1] / size).chunk(2, dim=1)
    deviation = (square - mean.square()).clamp(min=1e-8).sqrt()
    return torch.cat([mean, deviation, size.log() / 10], dim=1)


def places(known: Tensor) -> Tensor:  # [S, 13] -> [S, 3]
    """The mean places among facts."""
    return known[:, 3:6]
