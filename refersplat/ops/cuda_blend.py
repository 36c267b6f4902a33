"""The blend matrix of a frozen view on a GPU: built, and multiplied with values or an image."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from refer3d.native.cuda import Kernels
from refer3d.native.cuda.launcher import REALS
from refersplat.ops.cuda_rasterize import (
    THREADS,
    WIDTHS,
    joined_channels,
    split_channels,
    tile_lists,
)

MAX_CHANNELS = 16
"""More of an image's channels do not fit into a block's memory with a tile."""


def blend_matrix(gpu: Kernels, *inputs: Any) -> tuple[Tensor, ...]:
    """The tensors of a ``BlendMatrix``, in its order: counted first, then written.

    Raises:
        ValueError: If the view has too many weights.
    """
    means2d, *_, height, width = inputs
    lists = tile_lists(gpu, *inputs)
    tiles, device, real = len(lists.starts) - 1, means2d.device, REALS[means2d.dtype]
    counts = torch.empty(tiles, 3, dtype=torch.int64, device=device)
    transmittance = means2d.new_empty(height, width)
    inputs = (*lists, width, height)
    outputs = (counts, transmittance)
    gpu.launch("blend", "count_weights", tiles, THREADS, *inputs, *outputs, REAL=real)
    firsts = F.pad(counts.cumsum(dim=0), (0, 0, 1, 0))  # [tiles + 1, 3]
    num_groups, num_rows, num_weights = firsts[-1].tolist()
    if num_rows >= 2**31:
        raise ValueError(f"a blend matrix holds at most 2^31 rows of pixels, got {num_rows}")
    sizes = (num_groups, num_groups + 1, num_rows)
    gaussians, group_rows, rows = (
        torch.empty(size, dtype=torch.int32, device=device) for size in sizes
    )
    group_rows[0] = 0
    weights = means2d.new_empty(num_weights)
    outputs = (gaussians, group_rows, rows, weights)
    gpu.launch("blend", "write_weights", tiles, THREADS, *inputs, firsts, *outputs, REAL=real)
    tile_groups, tile_weights = firsts[:, 0].contiguous(), firsts[:, 2].contiguous()
    return tile_groups, tile_weights, *outputs, transmittance


def product(gpu: Kernels, values: Tensor, *matrix: Any) -> Tensor:
    """Image [C, H, W] of values [N, C]; ``matrix`` has six tensors, height and width."""
    *arrays, height, width = matrix
    channels = values.shape[1]
    image = values.new_empty(channels, height, width)
    if channels:
        # Both products are in one file, which is compiled whole.
        most = MAX_CHANNELS if values.dtype == torch.float64 else WIDTHS[-1]
        parts, defines = split_channels(channels, values.dtype, most)
        grid = (len(arrays[0]) - 1, parts)
        arguments = (*arrays, values.contiguous(), channels, width, height, image)
        gpu.launch("blend", "product", grid, THREADS, *arguments, **defines)
    return image


def transposed_product(gpu: Kernels, image: Tensor, *matrix: Any) -> Tensor:
    """Values [N, C] of an image [C, H, W]; ``matrix`` has six tensors and N."""
    *arrays, count = matrix
    channels, height, width = image.shape
    values = image.new_zeros(count, channels)
    if not channels:
        return values
    parts, defines = split_channels(channels, image.dtype, MAX_CHANNELS)
    grid, gaussians = (len(arrays[0]) - 1, parts), arrays[2]
    arguments = (*arrays, image.contiguous(), channels, width, height)
    if torch.are_deterministic_algorithms_enabled():
        defines["ORDERED"] = 1
        rows = image.new_zeros(parts, len(gaussians), int(defines["CHANNELS"]))
        gpu.launch("blend", "transposed_product", grid, THREADS, *arguments, rows, **defines)
        return values.index_add_(0, gaussians.long(), joined_channels(rows, channels))
    gpu.launch("blend", "transposed_product", grid, THREADS, *arguments, values, **defines)
    return values
