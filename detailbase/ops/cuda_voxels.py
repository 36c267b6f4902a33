"""Voxels, kernel maps and segments on a GPU: keys by kernels, order by torch's sorts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from detailbase.ops import reference
from detailbase.ops.reference import BLOCK
from refer3d.native.cuda import Kernels, blocks_for
from refer3d.native.cuda.launcher import REALS

THREADS = 256
SEGMENT_THREADS, CHANNELS = 512, 32
"""Threads of a segment's block, and how many channels it reduces."""
INTEGERS = {torch.int32: "int", torch.int64: "int64_t"}


Pairs = tuple[Tensor, Tensor, Tensor]
"""inputs [P], outputs [P], starts [blocks * V + 1]."""


class Frame(NamedTuple):
    """Origin of the voxels' places: see ``voxels.h``."""

    scene: int
    x: int
    y: int
    z: int
    axis_bits: int


def frame_of(coords: Tensor, batch: Tensor) -> Frame:
    """The frame of N > 0 points. Waits for the GPU, to see whether a key has enough bits.

    Raises:
        ValueError: If they span too much.
    """
    columns = torch.cat([batch[:, None], coords], dim=1).long()
    ends = torch.stack([columns.amin(dim=0), columns.amax(dim=0)])
    (scene, *low), (last_scene, *high) = ends.tolist()
    x, y, z = origin = [value & ~0xFFFF for value in low]
    extents = [top - bottom for top, bottom in zip(high, origin, strict=True)]
    axis_bits = max(2, *(extent.bit_length() for extent in extents))
    scene_bits = (last_scene - scene).bit_length()
    if axis_bits > reference.MAX_AXIS_BITS or 3 * axis_bits + scene_bits > 64:
        raise ValueError(
            "coords must span fewer than 2^21 voxels on every axis (and fewer in a large batch); "
            "is the cloud in metres, and the voxel size right?"
        )
    return Frame(scene, x, y, z, axis_bits)


def voxel_keys(gpu: Kernels, coords: Tensor, batch: Tensor, frame: Frame) -> Tensor:
    """Numbers [N] whose order is Morton's, scene by scene."""
    coords, batch = coords.contiguous(), batch.contiguous()
    keys = torch.empty(len(coords), dtype=torch.int64, device=coords.device)
    arguments = (coords, batch, len(coords), *frame, keys)
    blocks, integer = blocks_for(len(coords), THREADS), INTEGERS[coords.dtype]
    gpu.launch("voxels", "voxel_keys", blocks, THREADS, *arguments, INT=integer)
    return keys


def _sorted(gpu: Kernels, coords: Tensor, batch: Tensor) -> tuple[Frame, Tensor, Tensor]:
    """The frame of N > 0 points, their keys in order, and the points of these keys."""
    frame = frame_of(coords, batch)
    keys, order = voxel_keys(gpu, coords, batch, frame).sort(dim=0, stable=True)
    return frame, keys, order


def voxelize(gpu: Kernels, coords: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct voxels [M, 4] in Morton's order, and each point's voxel [N]."""
    rows = torch.cat([batch[:, None], coords], dim=1)
    if not len(coords):
        return rows, torch.empty(0, dtype=torch.int64, device=coords.device)
    _, keys, order = _sorted(gpu, coords, batch)
    is_first = F.pad(keys[1:] != keys[:-1], (1, 0), value=True)
    point_to_voxel = torch.empty_like(order).scatter_(0, order, is_first.cumsum(dim=0) - 1)
    return rows[order[is_first]], point_to_voxel


def submanifold_map(
    gpu: Kernels, voxels: Tensor, kernel: Sequence[int], dilation: Sequence[int]
) -> Pairs:
    """Pairs of a kernel of odd sizes around each voxel."""
    shift = [-pad for pad in reference.centred(kernel, dilation)]
    return _meetings(gpu, voxels, voxels, kernel, [1] * 3, shift, dilation, [1] * 3)


def kernel_map(
    gpu: Kernels,
    voxels: Tensor,
    first: Sequence[int],
    last: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> tuple[Tensor, ...]:
    """The outputs that voxels reach, and the pairs down to and up from them."""
    rows, _, places = reference.reached(voxels, first, last, kernel, stride, padding, dilation)
    outputs, _ = voxelize(gpu, places, voxels[rows, 0])
    ones = [1] * 3
    shift = [-pad for pad in padding]
    down = _meetings(gpu, outputs, voxels, kernel, stride, shift, dilation, ones)
    steps = [-step for step in dilation]
    up = _meetings(gpu, voxels, outputs, kernel, ones, padding, steps, stride)
    return outputs, *down, *up


def _meetings(
    gpu: Kernels, voxels: Tensor, others: Tensor, kernel: Sequence[int], *rule: Sequence[int]
) -> Pairs:
    """Pairs of voxels, as outputs, with the others that they meet, as inputs.

    Args:
        gpu: Launches.
        voxels: [M, 4].
        others: [M', 4], distinct.
        kernel: Its sizes.
        rule: Numbers multiple, shift, step, divisor for each axis: under offset k, place p meets
            place (multiple p + shift + step k) / divisor, where that is whole.
    """
    volume = math.prod(kernel)
    table = _table(len(voxels), volume, voxels.device)
    if not len(others):
        starts = torch.zeros(len(table) * volume + 1, dtype=torch.int64, device=voxels.device)
        return table.new_empty(0), table.new_empty(0), starts
    voxels, others = voxels.contiguous(), others.contiguous()
    frame, keys, order = _sorted(gpu, others[:, 1:], others[:, 0])
    numbers = torch.tensor([list(kernel), *map(list, rule)], device=voxels.device)
    arguments = (voxels, len(voxels), *frame, keys, order, len(others), numbers, BLOCK)
    size, integer = table.numel(), INTEGERS[voxels.dtype]
    if size:
        grid = blocks_for(size, THREADS)
        arguments = (*arguments, volume, size, table)
        gpu.launch("voxels", "find_neighbours", grid, THREADS, *arguments, INT=integer)
    starts = F.pad((table >= 0).sum(dim=2).flatten().cumsum(dim=0), (1, 0))
    (total,) = _read_sizes(keys, order, starts[-1:])
    return _pairs(gpu, table, starts, total)


def _table(outputs: int, volume: int, device: torch.device) -> Tensor:
    """For each block of outputs, [V, BLOCK] rows of inputs, -1 for none."""
    size = (blocks_for(outputs, BLOCK), volume, BLOCK)
    return torch.empty(size, dtype=torch.int32, device=device)


def _read_sizes(keys: Tensor, order: Tensor, sizes: Tensor) -> list[int]:
    """Waits for the GPU, once for the sizes and for whether all keys are distinct.

    Raises:
        ValueError: Two voxels are the same.
    """
    is_twin = keys[1:] == keys[:-1]
    *read, twins = torch.cat([sizes, is_twin.sum()[None]]).tolist()
    if twins:
        one, other = order[int(is_twin.nonzero()[0]) :][:2].tolist()
        raise ValueError(f"voxels must be distinct, rows {one} and {other} are the same")
    return read


def _pairs(gpu: Kernels, table: Tensor, starts: Tensor, size: int) -> Pairs:
    blocks, volume, block = table.shape
    inputs, outputs = table.new_empty(2, size)
    if blocks:
        arguments = (table, starts, volume, block, inputs, outputs)
        gpu.launch("voxels", "write_pairs", blocks * volume, THREADS, *arguments)
    return inputs, outputs, starts


def segment_order(segments: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The rows segment by segment [N], and each segment's first [S + 1].

    Raises:
        ValueError: If a segment does not exist. On a GPU it is CUDA's error, as for PyTorch's own
            indices: to name the row, the host would wait for the GPU.
    """
    if not segments.is_cuda:
        reference.check_segments(segments, count)
    bounds = torch.arange(count + 1, dtype=torch.int32, device=segments.device)
    # As int32, which takes half the passes of a sort; gather checks the indices on its way.
    ordered, order = bounds[:count].gather(0, segments).sort(dim=0, stable=True)
    return order, torch.searchsorted(ordered, bounds)


def segment_sum(gpu: Kernels, values: Tensor, segments: Tensor, count: int) -> Tensor:
    """The sum of each segment's rows, added in an order that they alone decide."""
    order, starts = segment_order(segments, count)
    total = values.new_empty(count, values.shape[1])
    _reduce(gpu, "segment_sum", values, order, starts, total)
    return total


def segment_max(
    gpu: Kernels, values: Tensor, segments: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """The largest value of each segment [S, C], and its first row."""
    order, starts = segment_order(segments, count)
    largest = values.new_empty(count, values.shape[1])
    rows = torch.empty(largest.shape, dtype=torch.int64, device=values.device)
    _reduce(gpu, "segment_max", values, order, starts, largest, rows)
    return largest, rows


def _reduce(
    gpu: Kernels, kernel: str, values: Tensor, order: Tensor, starts: Tensor, *outputs: Tensor
) -> None:
    if outputs[0].numel():
        count, channels = outputs[0].shape
        arguments = (values.contiguous(), order, starts, channels, *outputs)
        grid, real = (count, blocks_for(channels, CHANNELS)), REALS[values.dtype]
        gpu.launch("segments", kernel, grid, SEGMENT_THREADS, *arguments, REAL=real)
