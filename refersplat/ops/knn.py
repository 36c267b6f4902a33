"""Exact nearest neighbours of points in space."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from refer3d.native import apply, check_real, check_same, check_shape, fill, operator
from refersplat.ops import cuda_knn, reference


def knn(
    queries: Tensor,  # [M, 3]
    points: Tensor,  # [N, 3]
    k: int,
) -> tuple[Tensor, Tensor]:
    """Finds the ``k`` points nearest to each query, exactly.

    Points that are equally near come in the order of their indices. Where the queries are the
    points themselves, each one's nearest is itself (or an earlier duplicate). The distances are
    differentiable in both clouds.

    Args:
        queries: Where to search from.
        points: Where to search; finite, float32 or float64 like the queries.
        k: How many neighbours to find, at most N.

    Returns:
        squared_distances: [M, K], nearest first.
        indices: [M, K] int64, rows of ``points``.

    Raises:
        ValueError: If a shape, dtype, device or ``k`` does not fit, or a coordinate is not finite.
    """
    check_shape("queries", queries, (None, 3))
    check_shape("points", points, (None, 3))
    check_same("points", points, "queries", queries)
    check_real("queries", queries)
    if not 0 <= k <= len(points):
        raise ValueError(f"k must lie between 0 and the number of points, {len(points)}, got {k}")
    return apply(_Knn, queries, points, k)


class _Knn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
        squared_distances, indices = _knn(queries, points, k)
        ctx.save_for_backward(queries, points, indices)
        ctx.mark_non_differentiable(indices)
        return squared_distances, indices

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor, Tensor, None]:
        queries, points, indices = ctx.saved_tensors
        toward_query = 2 * grad[..., None] * (queries[:, None] - points[indices])  # [M, K, 3]
        grad_points = torch.zeros_like(points).index_add(
            0, indices.flatten(), -toward_query.reshape(-1, 3)
        )
        return toward_query.sum(dim=1), grad_points, None


@operator("refersplat::knn", reference=reference.knn)
def _knn(queries: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    size = (queries.shape[0], k)
    return queries.new_empty(size), queries.new_empty(size, dtype=torch.int64)


@_knn.cpu
def _(native: Any, queries: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    return fill(native.knn, (queries, points), _knn.empty(queries, points, k))


_knn.cuda(cuda_knn.knn)
