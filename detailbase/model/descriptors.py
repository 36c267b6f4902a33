"""Descriptors of superpoints: what can be measured and need not be learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detailbase.model.norm import BatchNorm
from detailbase.ops import segment_reduce

NUM_DESCRIPTORS = 13
POSITION = slice(3, 6)
"""Columns of the mean position."""
DEVIATION = slice(9, 12)
"""Columns of the position's standard deviation."""


class DescriptorEncoder(nn.Sequential):
    """Normalises descriptors and embeds them in C channels: [S, inputs] -> [S, C]."""

    def __init__(self, channels: int, inputs: int = NUM_DESCRIPTORS) -> None:
        super().__init__(
            BatchNorm(inputs, affine=False),
            *(nn.Linear(inputs, 2 * channels), nn.ReLU(), nn.Linear(2 * channels, channels)),
            nn.LayerNorm(channels),
        )


def moments(
    points: Tensor,  # [N, 6]
    superpoints: Tensor,  # [N]
    count: int,
) -> Tensor:  # [S, 13]
    """Sums each superpoint's colours and positions, their squares, and ones.

    The moments of several superpoints together are the sum of theirs.
    """
    ones = points.new_ones(len(points), 1)
    return segment_reduce(torch.cat([points, points.square(), ones], dim=1), superpoints, count)


def describe(sums: Tensor) -> Tensor:  # [S, 13] -> [S, 13]
    """Computes mean and deviation of colour and position, and the log of the size, from moments."""
    size = sums[:, -1:].clamp(min=1)
    mean, square = (sums[:, :-1] / size).chunk(2, dim=1)
    deviation = (square - mean.square()).clamp(min=1e-8).sqrt()
    return torch.cat([mean, deviation, size.log() / 10], dim=1)
