"""Sparse convolution on a GPU, on tensor cores where the precision that torch is set to allows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from detailbase.ops.reference import BLOCK
from refer3d.native.cuda import Kernels, blocks_for

THREADS = 256
SIDES = (32, 64)
"""Channels that a block takes of a weight's gradient, both ways."""
ENOUGH_BLOCKS = 512
"""Blocks that keep a large GPU busy; with fewer, work is split into parts that are added up."""
HALVES = {torch.bfloat16: "kBfloat16", torch.float16: "kFloat16"}
DTYPES = (torch.float32, torch.float64, *HALVES)


def _defines(gpu: Kernels, *rows: Tensor) -> dict[str, str | int]:
    """The defines of a kernel that reads such rows."""
    is_aligned = all(t.shape[-1] * t.itemsize % 16 == 0 == t.data_ptr() % 16 for t in rows)
    defines: dict[str, str | int] = {"ALIGNED": 1} if is_aligned else {}
    dtype = rows[0].dtype
    if dtype in HALVES:
        return defines | {"PRECISION": HALVES[dtype], "HALF": 1}
    if dtype == torch.float64:
        return defines | {"REAL": "double"}
    is_exact = torch.get_float32_matmul_precision() == "highest" or not gpu.has_tf32
    return defines if is_exact else defines | {"PRECISION": "kTf32"}


def _sums_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def sparse_conv(gpu: Kernels, *inputs: Any) -> Tensor:
    """relu(convolution + bias + residual) [M', D]; sums are kept in float32 at least."""
    features, weight, bias, residual, relu, num_outputs, *pairs, is_mirrored = inputs
    if features.dtype in HALVES and not gpu.has_tf32:
        terms = (t if t is None else t.float() for t in inputs[:4])
        return sparse_conv(gpu, *terms, *inputs[4:]).to(features.dtype)
    volume, in_channels, out_channels = weight.shape
    size, dtype = (num_outputs, out_channels), _sums_dtype(features.dtype)
    if not num_outputs or not out_channels:
        return features.new_empty(size)
    bias, residual = (None if t is None else t.contiguous() for t in (bias, residual))
    features = features.contiguous()
    weight, steps = _dense(weight)
    columns = 16 if features.dtype == torch.float64 else 32
    blocks, tiles = blocks_for(num_outputs, BLOCK), blocks_for(out_channels, columns)
    splits = min(volume, blocks_for(ENOUGH_BLOCKS, blocks * tiles))
    out = features.new_empty(size)
    parts = features.new_empty(splits, *size, dtype=dtype) if splits > 1 else None
    defines = _defines(gpu, features)
    operands = (features, weight, *steps, *pairs)
    numbers = (volume, is_mirrored, splits, num_outputs, in_channels, out_channels)
    arguments = (*operands, *numbers, bias, residual, relu, parts, out)
    grid = (blocks * splits, tiles)
    gpu.launch("sparse_conv", "convolve", grid, THREADS, *arguments, BLOCK=BLOCK, **defines)
    if parts is not None:
        _join(gpu, parts, out, bias, residual, relu)
    return out


def _dense(weight: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """The numbers as they lie in memory, without gaps, and how far those of each dimension lie
    apart. A permuted weight, as a U-Net's, is not copied for it.
    """
    order = sorted(range(weight.ndim), key=weight.stride, reverse=True)
    if weight.permute(order).is_contiguous():
        return weight.permute(order), weight.stride()
    weight = weight.contiguous()
    return weight, weight.stride()


def _join(
    gpu: Kernels,
    parts: Tensor,
    out: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    relu: bool = False,
) -> None:
    """Out = relu(sum of the parts + bias + residual)."""
    numbers = (len(parts), out.numel(), out.shape[-1])
    arguments = (parts, *numbers, bias, residual, relu, out)
    blocks, defines = blocks_for(out.numel(), THREADS), _defines(gpu, out)
    gpu.launch("sparse_conv", "join_parts", blocks, THREADS, *arguments, **defines)


def weight_gradient(gpu: Kernels, *inputs: Any) -> Tensor:
    """Gradient [V, C, D]: parts of it by blocks of outputs, added in a fixed order."""
    features, grad, volume, *pairs, is_mirrored = inputs
    if features.dtype in HALVES and not gpu.has_tf32:
        rows = (features.float(), grad.float())
        return weight_gradient(gpu, *rows, *inputs[2:]).to(features.dtype)
    in_channels, out_channels = features.shape[1], grad.shape[1]
    num_blocks = (len(pairs[-1]) - 1) // volume
    side = SIDES[max(in_channels, out_channels) > SIDES[0]]
    tiles = blocks_for(in_channels, side) * blocks_for(out_channels, side)
    size, dtype = (volume, in_channels, out_channels), _sums_dtype(features.dtype)
    if not tiles or not num_blocks:
        return features.new_zeros(size)
    splits = min(num_blocks, blocks_for(ENOUGH_BLOCKS, volume * tiles))
    parts = features.new_empty(splits, *size, dtype=dtype)
    features, grad = features.contiguous(), grad.contiguous()
    numbers = (volume, is_mirrored, num_blocks, splits, in_channels, out_channels)
    arguments = (features, grad, *pairs, *numbers, parts)
    grid, defines = (volume * splits, tiles), {"SIDE": side, **_defines(gpu, features, grad)}
    gpu.launch("sparse_conv", "weight_gradient", grid, THREADS, *arguments, **defines)
    if splits == 1:
        return parts[0].to(features.dtype)
    out = features.new_empty(size)
    _join(gpu, parts, out)
    return out
