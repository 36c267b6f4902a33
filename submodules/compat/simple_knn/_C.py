"""``from simple_knn._C import distCUDA2``, without CUDA."""

from __future__ import annotations

import torch
from torch import Tensor

from refer3d.native import check_shape
from refersplat.ops import knn


@torch.no_grad()
def distCUDA2(points: Tensor) -> Tensor:
    """The mean squared distance of each point to its three nearest others.

    Args:
        points: [N, 3], at least two; where there are fewer than three others, all of them count.

    Returns:
        [N], on the device of ``points``.
    """
    check_shape("points", points, (None, 3))
    if len(points) < 2:
        raise ValueError(f"points must be at least 2 to have neighbours, got {len(points)}")
    squared_distances, _ = knn(points, points, min(4, len(points)))
    return squared_distances[:, 1:].mean(dim=1)  # the first is the point itself
