"""Exact nearest neighbours of points in space."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from refer3d.native import (
    as_array,
    check_real,
    check_same,
    check_shape,
    cpu_ops,
    num_threads,
    operator,
)
from refer3d.native.cuda import kernels
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
    return _knn(queries, points, k)


@operator("refersplat::knn")
def _knn(queries: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    if gpu := kernels("refersplat", queries):
        return cuda_knn.knn(gpu, queries, points, k)
    native = cpu_ops("refersplat", queries)
    if native is None:
        return reference.knn(queries, points, k)
    squared_distances = queries.new_empty(len(queries), k)
    indices = torch.empty(len(queries), k, dtype=torch.int64)
    native.knn(
        as_array(queries),
        as_array(points),
        num_threads(),
        squared_distances.numpy(),
        indices.numpy(),
    )
    return squared_distances, indices


@_knn.register_fake
def _(queries: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    size = (queries.shape[0], k)
    return queries.new_empty(size), queries.new_empty(size, dtype=torch.int64)


def _keep_for_backward(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    queries, points, _ = inputs
    ctx.save_for_backward(queries, points, output[1])
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor, Tensor, None]:
    queries, points, indices = ctx.saved_tensors
    toward_query = 2 * grad[..., None] * (queries[:, None] - points[indices])  # [M, K, 3]
    grad_points = torch.zeros_like(points).index_add(
        0, indices.flatten(), -toward_query.reshape(-1, 3)
    )
    return toward_query.sum(dim=1), grad_points, None


_knn.register_autograd(_backward, setup_context=_keep_for_backward)
