"""Convolution of voxel features over a kernel map."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from detailbase.ops import cuda_conv, reference
from detailbase.ops.kernel_map import BLOCK, KernelMap
from refer3d.native import apply, check_same, check_shape, fill, operator


def sparse_conv(
    features: Tensor,  # [M, C]
    weight: Tensor,  # [V, C, D]
    kernel_map: KernelMap,
    *,
    bias: Tensor | None = None,  # [D]
    residual: Tensor | None = None,  # [M', D]
    relu: bool = False,
) -> Tensor:  # [M', D]
    """Sums, for each output voxel, the weighted features of the input voxels it is paired with.

    The result is ``relu(convolution + bias + residual)``; a batch norm that follows folds into the
    weight and the bias. Differentiable in every tensor. The sums do not depend on the number of
    threads.

    Args:
        features: float32 or float64; on a GPU also bfloat16 or float16, with sums in float32.
            Products of float32 have the precision of ``torch.set_float32_matmul_precision``: on a
            GPU "high" is tf32; "medium" is bfloat16 on processors that multiply it.
        weight: One matrix per kernel offset; any strides, so a permuted view costs nothing.
        kernel_map: Which pairs there are.
        bias: Added to each output row.
        residual: Added to each output.
        relu: Whether negative results become 0.

    Raises:
        ValueError: If a shape, dtype or device does not fit.
    """
    device = features.device.type
    if device != "cpu" and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        features, weight = features.to(dtype), weight.to(dtype)
        bias, residual = (None if t is None else t.to(dtype) for t in (bias, residual))
    check_shape("features", features, (kernel_map.num_inputs, None))
    check_shape("weight", weight, (kernel_map.volume, features.shape[1], None))
    check_same("weight", weight, "features", features)
    if not features.is_floating_point():
        raise ValueError(f"features must have a floating dtype, got {str(features.dtype)[6:]}")
    if bias is not None:
        check_shape("bias", bias, (weight.shape[2],))
        check_same("bias", bias, "features", features)
    if residual is not None:
        check_shape("residual", residual, (kernel_map.num_outputs, weight.shape[2]))
        check_same("residual", residual, "features", features)
    ahead, back = kernel_map.forward, kernel_map.backward
    if ahead.inputs.device != features.device:
        raise ValueError(
            f"kernel_map must be on {features.device} like features, got {ahead.inputs.device}"
        )
    return apply(
        _SparseConv,
        features,
        weight,
        bias,
        residual,
        relu,
        kernel_map.num_outputs,
        *(ahead.inputs, ahead.outputs, ahead.starts, ahead.is_mirrored),
        *(back.inputs, back.outputs, back.starts, back.is_mirrored),
    )


def rounds_products() -> bool:
    """True where PyTorch's setting allows products of float32 in bfloat16."""
    return torch.get_float32_matmul_precision() == "medium"


class _SparseConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        features, weight, _, _, relu, _, *pairs = inputs
        output = _sparse_conv(*inputs[:10])
        ctx.is_mirrored = (pairs[3], pairs[7])
        ctx.save_for_backward(features, weight, output if relu else None, *pairs[:3], *pairs[4:7])
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, output, *pairs = ctx.saved_tensors
        ahead, back = (*pairs[:3], ctx.is_mirrored[0]), (*pairs[3:], ctx.is_mirrored[1])
        needs_features, needs_weight, needs_bias, needs_residual = ctx.needs_input_grad[:4]
        if output is not None:
            grad = grad * (output > 0)
        grad_features = grad_weight = None
        if needs_features:
            grad_features = _sparse_conv(grad, weight.mT, None, None, False, len(features), *back)
        if needs_weight:
            grad_weight = _weight_grad(features, grad, len(weight), *ahead)
        return (
            grad_features,
            grad_weight,
            grad.sum(dim=0) if needs_bias else None,
            grad if needs_residual else None,
            *[None] * 10,
        )


@operator("detailbase::sparse_conv", reference=reference.sparse_conv)
def _sparse_conv(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    relu: bool,
    num_outputs: int,
    inputs: Tensor,
    outputs: Tensor,
    starts: Tensor,
    is_mirrored: bool,
) -> Tensor:
    return features.new_empty(num_outputs, weight.shape[2])


@_sparse_conv.cpu
def _(native: Any, *arguments: Any) -> Tensor:
    features, weight, bias, residual, relu, _, *pairs, is_mirrored = arguments
    nothing = features.new_empty(0)
    bias, residual = (nothing if t is None else t for t in (bias, residual))
    is_rounded = features.dtype == torch.float32 and rounds_products() and native.has_bfloat16()
    convolve = native.sparse_conv_bfloat16 if is_rounded else native.sparse_conv
    # The weight goes with its strides.
    inputs = (features, weight.detach().numpy(), *pairs, BLOCK, is_mirrored, bias, residual, relu)
    return fill(convolve, inputs, _sparse_conv.empty(*arguments))


_sparse_conv.cuda(cuda_conv.sparse_conv, dtypes=cuda_conv.DTYPES)


@operator("detailbase::sparse_conv_weight_grad", reference=reference.sparse_conv_weight_grad)
def _weight_grad(
    features: Tensor,
    grad: Tensor,
    volume: int,
    inputs: Tensor,
    outputs: Tensor,
    starts: Tensor,
    is_mirrored: bool,
) -> Tensor:
    return features.new_empty(volume, features.shape[1], grad.shape[1])


@_weight_grad.cpu
def _(native: Any, *arguments: Any) -> Tensor:
    features, grad, _, *pairs, is_mirrored = arguments
    inputs = (features, grad, *pairs, BLOCK, is_mirrored)
    return fill(native.sparse_conv_weight_grad, inputs, _weight_grad.empty(*arguments))


_weight_grad.cuda(cuda_conv.weight_gradient, dtypes=cuda_conv.DTYPES)
