"""Blending on a GPU: tile lists by torch's sorts, and a block of threads for each tile."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from refer3d.native.cuda import Kernels, blocks_for
from refer3d.native.cuda.launcher import REALS

TILE = 16
THREADS = 256
WIDTHS = (1, 3, 4, 8, 16, 32)
"""Numbers of channels that a block may take; more are spread over several."""
RECORD = 8
MOMENTS = 6


class TileLists(NamedTuple):
    """The Gaussians that each tile meets, nearest first."""

    records: Tensor
    """[8 N], what the kernels read of a Gaussian."""
    gaussians: Tensor
    """[P] int32, tile by tile."""
    starts: Tensor
    """[tiles + 1] int64, each tile's first."""


def tile_lists(gpu: Kernels, *inputs: Any) -> TileLists:
    """Sorts twice, which is cheaper than once by both: Gaussians by depth, then pairs by tile."""
    means2d, conics, depths, opacities, height, width = inputs
    tiles = blocks_for(width, TILE) * blocks_for(height, TILE)
    key, key_name = (torch.int16, "int16_t") if tiles < 2**15 else (torch.int32, "int32_t")
    every_tile = torch.arange(tiles + 1, dtype=key, device=means2d.device)
    records, count = means2d.new_empty(RECORD * len(means2d)), len(means2d)
    if not count:
        gaussians = torch.empty(0, dtype=torch.int32, device=means2d.device)
        return TileLists(records, gaussians, torch.zeros_like(every_tile, dtype=torch.int64))

    splats = [t.contiguous() for t in (means2d, conics, depths, opacities)]
    order = torch.argsort(splats[2], dim=0, stable=True)
    inputs = (order, *splats, width, height, count)
    blocks = blocks_for(count, THREADS)
    counts = torch.empty_like(order)
    defines = {"REAL": REALS[means2d.dtype], "KEY": key_name}
    gpu.launch("tiles", "count_tiles", blocks, THREADS, *inputs, records, counts, **defines)
    ends = counts.cumsum(dim=0)
    pairs = int(ends[-1])  # waits for the GPU: memory must be had for so many
    keys = torch.empty(pairs, dtype=key, device=means2d.device)
    gaussians = torch.empty(pairs, dtype=torch.int32, device=means2d.device)
    outputs = (keys, gaussians)
    gpu.launch("tiles", "list_tiles", blocks, THREADS, *inputs, ends, *outputs, **defines)
    keys, by_tile = torch.sort(keys, dim=0, stable=True)
    return TileLists(records, gaussians[by_tile], torch.searchsorted(keys, every_tile))


def split_channels(
    channels: int, dtype: torch.dtype, most: int = WIDTHS[-1]
) -> tuple[int, dict[str, str | int]]:
    """The number of blocks for the channels, and the defines of a kernel for them."""
    width = next((width for width in WIDTHS if width >= min(channels, most)), most)
    return max(1, blocks_for(channels, width)), {"CHANNELS": width, "REAL": REALS[dtype]}


def joined_channels(parts: Tensor, channels: int) -> Tensor:  # [parts, P, CHANNELS] -> [P, C]
    """The channels of all parts side by side."""
    return parts.transpose(0, 1).flatten(1)[:, :channels]


def rasterize(gpu: Kernels, *inputs: Any) -> tuple[Tensor, ...]:
    """Image [C, H, W], transmittance [H, W] and the tile lists."""
    *splats, values, height, width, keeps_lists = inputs
    lists = tile_lists(gpu, *splats, height, width)
    channels = values.shape[1]
    image = values.new_empty(channels, height, width)
    transmittance = values.new_empty(height, width)
    arguments = (*lists, values.contiguous(), channels, width, height, image, transmittance)
    parts, defines = split_channels(channels, values.dtype)
    grid = (len(lists.starts) - 1, parts)
    gpu.launch("rasterize", "blend", grid, THREADS, *arguments, **defines)
    kept = lists if keeps_lists else (part.new_empty(0) for part in lists)
    return image, transmittance, *kept


def rasterize_backward(gpu: Kernels, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of means2d, conics, opacities and values.

    Under ``torch.use_deterministic_algorithms`` their sums have a fixed order, which costs time,
    and memory for each pair of a Gaussian and a tile.
    """
    *splats, values, image, transmittance = inputs[:7]
    (height, width), (count, channels) = transmittance.shape, values.shape
    lists = TileLists(*inputs[7:10])
    if not len(lists.starts):
        lists = tile_lists(gpu, *splats, height, width)
    means2d, pixels = splats[0], (image, transmittance, *inputs[10:])
    read = (values.contiguous(), channels, width, height, *(t.contiguous() for t in pixels))
    pairs = len(lists.gaussians)
    parts, defines = split_channels(channels, means2d.dtype)
    grid = (len(lists.starts) - 1, parts)

    def launch(*outputs: Tensor, **ordered: int) -> None:
        arguments = (*lists, *read, pairs, *outputs)
        gpu.launch("rasterize", "blend_backward", grid, THREADS, *arguments, **defines, **ordered)

    moments, grad_values = means2d.new_zeros(count, MOMENTS), means2d.new_zeros(count, channels)
    if torch.are_deterministic_algorithms_enabled():
        rows = means2d.new_zeros(parts, pairs, MOMENTS)
        value_rows = means2d.new_zeros(parts, pairs, int(defines["CHANNELS"]))
        launch(rows, value_rows, ORDERED=1)
        index = lists.gaussians.long()
        moments.index_add_(0, index, rows.sum(dim=0))
        grad_values.index_add_(0, index, joined_channels(value_rows, channels))
    else:
        launch(moments, grad_values)

    grads = (means2d.new_empty(count, 2), means2d.new_empty(count, 3), means2d.new_empty(count))
    if count:
        blocks, arguments = blocks_for(count, THREADS), (lists.records, moments, count, *grads)
        gpu.launch("rasterize", "finish", blocks, THREADS, *arguments, **defines)
    return *grads, grad_values
