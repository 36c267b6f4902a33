"""Sums, means and maxima of rows that belong together."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from detailbase.ops import cuda_voxels, reference
from refer3d.native import apply, check_shape, fill, operator


def segment_reduce(
    values: Tensor,  # [N, C]
    segments: Tensor,  # [N]
    count: int,
    reduce: Literal["sum", "mean", "max"] = "sum",
) -> Tensor:  # [S, C]
    """Reduces the rows of each segment to one.

    The rows may come in any order, which alone decides in which they are added: the result is the
    same on any number of threads, and each time on a GPU. Differentiable in the values; a maximum's
    gradient goes to the first row that has it.

    Args:
        values: Of any floating dtype; sums are kept in float32 at least.
        segments: Each row's segment, int64 in 0..count-1.
        count: Number of segments, S.
        reduce: A segment without rows has 0.

    Raises:
        ValueError: If a shape, dtype, device or segment does not fit. A segment on a GPU is CUDA's
            error (``device-side assert``), as for PyTorch's own indices.
    """
    check_shape("values", values, (None, None))
    check_shape("segments", segments, (len(values),))
    if segments.dtype != torch.int64 or segments.device != values.device:
        raise ValueError(
            f"segments must be int64 on {values.device}, got {str(segments.dtype)[6:]} on "
            f"{segments.device}"
        )
    if not values.is_floating_point():
        raise ValueError(f"values must have a floating dtype, got {str(values.dtype)[6:]}")
    if count < 0:
        raise ValueError(f"count must not be negative, got {count}")
    if values.dtype in (torch.bfloat16, torch.float16):  # too coarse to add up in
        return segment_reduce(values.float(), segments, count, reduce).to(values.dtype)
    if reduce == "max":
        return apply(_SegmentMax, values, segments, count)
    if reduce not in ("sum", "mean"):
        raise ValueError(f"reduce must be sum, mean or max, got {reduce!r}")
    total = apply(_SegmentSum, values, segments, count)
    if reduce == "sum":
        return total
    # Not bincount, which waits for a GPU to tell the largest.
    rows = segments.new_zeros(count).scatter_add(0, segments, torch.ones_like(segments))
    return total / rows.clamp(min=1)[:, None]


class _SegmentSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, segments: Tensor, count: int) -> Tensor:
        ctx.save_for_backward(segments)
        return _segment_sum(values, segments, count)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (segments,) = ctx.saved_tensors
        return grad.index_select(0, segments), None, None


class _SegmentMax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, segments: Tensor, count: int) -> Tensor:
        largest, rows = _segment_max(values, segments, count)
        ctx.num_rows = values.shape[0]
        ctx.save_for_backward(rows)
        return largest

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (rows,) = ctx.saved_tensors
        # One row more takes the gradients of segments without rows.
        grad_values = grad.new_zeros(ctx.num_rows + 1, grad.shape[1])
        return grad_values.scatter(0, rows.where(rows >= 0, ctx.num_rows), grad)[:-1], None, None


@operator("detailbase::segment_sum", reference=reference.segment_sum)
def _segment_sum(values: Tensor, segments: Tensor, count: int) -> Tensor:
    return values.new_empty(count, values.shape[1])


@_segment_sum.cpu
def _(native: Any, values: Tensor, segments: Tensor, count: int) -> Tensor:
    return fill(native.segment_sum, (values, segments), _segment_sum.empty(values, segments, count))


_segment_sum.cuda(cuda_voxels.segment_sum)


@operator("detailbase::segment_max", reference=reference.segment_max)
def _segment_max(values: Tensor, segments: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The largest values [S, C], 0 without rows, and their first rows, -1 without."""
    size = (count, values.shape[1])
    return values.new_empty(size), values.new_empty(size, dtype=torch.int64)


@_segment_max.cpu
def _(native: Any, values: Tensor, segments: Tensor, count: int) -> tuple[Tensor, Tensor]:
    return fill(native.segment_max, (values, segments), _segment_max.empty(values, segments, count))


_segment_max.cuda(cuda_voxels.segment_max)
