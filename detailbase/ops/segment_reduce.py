"""Sums, means and maxima of rows that belong together."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from detailbase.ops import cuda_voxels, reference
from refer3d.native import as_array, check_shape, cpu_ops, num_threads, operator
from refer3d.native.cuda import kernels


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
        count: How many segments there are, S.
        reduce: What to keep; a segment without rows has 0.

    Raises:
        ValueError: If a shape, dtype, device or segment does not fit; of a GPU's segments, CUDA
            tells (``device-side assert``), as of PyTorch's own indices.
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
        return _segment_max(values, segments, count)[0]
    if reduce not in ("sum", "mean"):
        raise ValueError(f"reduce must be sum, mean or max, got {reduce!r}")
    total = _segment_sum(values, segments, count)
    if reduce == "sum":
        return total
    # Not bincount, which waits for a GPU to tell the largest.
    rows = segments.new_zeros(count).scatter_add(0, segments, torch.ones_like(segments))
    return total / rows.clamp(min=1)[:, None]


@operator("detailbase::segment_sum")
def _segment_sum(values: Tensor, segments: Tensor, count: int) -> Tensor:
    if gpu := kernels("detailbase", values):
        return cuda_voxels.segment_sum(gpu, values, segments, count)
    native = cpu_ops("detailbase", values)
    if native is None:
        return reference.segment_sum(values, segments, count)
    total = values.new_empty(count, values.shape[1])
    native.segment_sum(as_array(values), as_array(segments), num_threads(), total.numpy())
    return total


@_segment_sum.register_fake
def _(values: Tensor, segments: Tensor, count: int) -> Tensor:
    return values.new_empty(count, values.shape[1])


def _keep_segments(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def _sum_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    (segments,) = ctx.saved_tensors
    return grad.index_select(0, segments), None, None


_segment_sum.register_autograd(_sum_backward, setup_context=_keep_segments)


@operator("detailbase::segment_max")
def _segment_max(values: Tensor, segments: Tensor, count: int) -> tuple[Tensor, Tensor]:
    if gpu := kernels("detailbase", values):
        return cuda_voxels.segment_max(gpu, values, segments, count)
    native = cpu_ops("detailbase", values)
    if native is None:
        return reference.segment_max(values, segments, count)
    largest = values.new_empty(count, values.shape[1])
    rows = torch.empty(largest.shape, dtype=torch.int64)
    native.segment_max(
        as_array(values), as_array(segments), num_threads(), largest.numpy(), rows.numpy()
    )
    return largest, rows


@_segment_max.register_fake
def _(values: Tensor, segments: Tensor, count: int) -> tuple[Tensor, Tensor]:
    size = (count, values.shape[1])
    return values.new_empty(size), values.new_empty(size, dtype=torch.int64)


def _keep_rows(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    ctx.num_rows = len(inputs[0])
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])


def _max_backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor, None, None]:
    (rows,) = ctx.saved_tensors
    # One row more takes what belongs to segments without rows.
    grad_values = grad.new_zeros(ctx.num_rows + 1, grad.shape[1])
    return grad_values.scatter(0, rows.where(rows >= 0, ctx.num_rows), grad)[:-1], None, None


_segment_max.register_autograd(_max_backward, setup_context=_keep_rows)
