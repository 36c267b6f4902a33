"""Nearest neighbours on a GPU: a tree of boxes by sorts and minima, searched by a kernel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from refer3d.native.cuda import Kernels, blocks_for
from refer3d.native.cuda.launcher import REALS

THREADS = 128
LEAF = 16
KEPT = (1, 4, 8, 16)
"""Numbers of neighbours that a thread may keep in its registers."""
LARGEST = 2**31 - 1


def knn(gpu: Kernels, queries: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Squared distances [M, K], nearest first, and indices [M, K].

    Raises:
        ValueError: If a coordinate is not finite.
    """
    queries, points = queries.contiguous(), points.contiguous()
    squared_distances = queries.new_empty(len(queries), k)
    indices = torch.empty(len(queries), k, dtype=torch.int64, device=queries.device)
    if not indices.numel():
        return squared_distances, indices
    are_finite = torch.stack([queries.isfinite().all(), points.isfinite().all()]).tolist()
    for name, is_finite in zip(("queries", "points"), are_finite, strict=True):
        if not is_finite:
            raise ValueError(f"{name} must be finite")
    order = _order(gpu, points, points)
    are_points = queries.data_ptr() == points.data_ptr() and len(queries) == len(points)
    rows = order if are_points else _order(gpu, queries, points)
    placed = points[order]
    boxes, lowest = _tree(placed, order)
    leaves = len(boxes) // 2
    arguments = (queries, rows, len(rows), placed, order, len(order), boxes, lowest, leaves, k)
    defines = {"REAL": REALS[points.dtype], "NEIGHBOURS": next((n for n in KEPT if n >= k), 0)}
    blocks = blocks_for(len(rows), THREADS)
    outputs = (squared_distances, indices)
    gpu.launch("knn", "search", blocks, THREADS, *arguments, *outputs, **defines)
    return squared_distances, indices


def _order(gpu: Kernels, queries: Tensor, points: Tensor) -> Tensor:
    """The rows of ``queries`` in Morton's order on the points' grid."""
    low, high = points.amin(dim=0), points.amax(dim=0)
    keys = torch.empty(len(queries), dtype=torch.int64, device=queries.device)
    arguments = (queries, len(queries), low, high, keys)
    blocks, real = blocks_for(len(queries), THREADS), REALS[queries.dtype]
    gpu.launch("knn", "point_keys", blocks, THREADS, *arguments, REAL=real)
    return keys.argsort(dim=0)


def _tree(points: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes [2 leaves, 6] of points in their order, and the lowest index in each [2 leaves]."""
    leaves = 1 << (blocks_for(len(points), LEAF) - 1).bit_length()
    missing = leaves * LEAF - len(points)
    low = F.pad(points, (0, 0, 0, missing), value=torch.inf).view(leaves, LEAF, 3).amin(dim=1)
    high = F.pad(points, (0, 0, 0, missing), value=-torch.inf).view(leaves, LEAF, 3).amax(dim=1)
    lowest = F.pad(order, (0, missing), value=LARGEST).view(leaves, LEAF).amin(dim=1)
    levels = [(low, high, lowest)]
    while len(levels[-1][0]) > 1:
        low, high, lowest = levels[-1]
        levels.append(
            (
                low.view(-1, 2, 3).amin(dim=1),
                high.view(-1, 2, 3).amax(dim=1),
                lowest.view(-1, 2).amin(dim=1),
            )
        )
    lows, highs, numbers = zip(*reversed(levels), strict=True)
    boxes = torch.cat([torch.cat(lows), torch.cat(highs)], dim=1)
    # Nodes count from 1, as in a heap: the children of n are 2 n and 2 n + 1.
    return F.pad(boxes, (0, 0, 1, 0)), F.pad(torch.cat(numbers), (1, 0))
