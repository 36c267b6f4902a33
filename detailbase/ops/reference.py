"""The ops in plain PyTorch: voxels, segments, sparse convolution.

Runs on any device and in any float dtype; gradients are autograd's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from refer3d.native.checks import outside_autocast

BLOCK = 256
"""Outputs that are convolved at once. Their features stay in the cache meanwhile."""
MAX_AXIS_BITS = 21
"""Three coordinates of so many bits make one int64."""


def voxel_keys(
    batch: Tensor,  # [N]
    coords: Tensor,  # [N, 3]
) -> tuple[Tensor, Tensor]:
    """Numbers whose order is Morton's, scene by scene, and that differ where the voxels do.

    A key interleaves the bits of x, y and z, x first, counted from a multiple of 2^16; so
    ``key >> 3`` is the key of the voxel of twice the size.

    Returns:
        scenes: [N] int64, from 0.
        keys: [N] int64.

    Raises:
        ValueError: If the coordinates of an axis span 2^21 voxels or more.
    """
    coords, batch = coords.long(), batch.long()
    if len(coords) == 0:
        return batch, batch
    local = coords - (coords.amin(dim=0) & ~0xFFFF)
    scenes = batch - batch.amin(dim=0)
    axis_bits = max(2, int(local.max()).bit_length())
    if axis_bits > MAX_AXIS_BITS or 3 * axis_bits + int(scenes.max()).bit_length() > 64:
        raise ValueError(
            "coords must span fewer than 2^21 voxels on every axis (and fewer in a large batch); "
            "is the cloud in metres, and the voxel size right?"
        )
    keys = torch.zeros_like(scenes)
    for bit in range(axis_bits):
        for axis in range(3):
            keys |= (local[:, axis] >> bit & 1) << (3 * bit + 2 - axis)
    return scenes, keys


def voxelize(
    coords: Tensor,  # [N, 3]
    batch: Tensor,  # [N]
) -> tuple[Tensor, Tensor]:
    """Distinct voxels [M, 4] in Morton's order, scene by scene, and each point's voxel [N]."""
    scenes, keys = voxel_keys(batch, coords)
    columns = torch.stack([scenes, keys], dim=1)
    distinct, point_to_voxel = torch.unique(columns, dim=0, return_inverse=True)
    rows = torch.cat([batch[:, None], coords], dim=1)
    voxels = rows.new_empty(len(distinct), 4)
    voxels[point_to_voxel] = rows  # equal rows go to the same place
    return voxels, point_to_voxel


def segment_sum(
    values: Tensor,  # [N, C]
    segments: Tensor,  # [N]
    count: int,
) -> Tensor:  # [S, C]
    """The sum of each segment's rows."""
    check_segments(segments, count)
    return values.new_zeros(count, values.shape[1]).index_add(0, segments, values)


def segment_max(
    values: Tensor,  # [N, C]
    segments: Tensor,  # [N]
    count: int,
) -> tuple[Tensor, Tensor]:
    """The largest value of each segment [S, C], 0 without rows, and its first row, -1 without."""
    check_segments(segments, count)
    index = segments[:, None].expand_as(values)
    size = (count, values.shape[1])
    largest = values.new_zeros(size).scatter_reduce(0, index, values, "amax", include_self=False)
    at_segment = largest.gather(0, index)
    is_largest = (values == at_segment) | (values.isnan() & at_segment.isnan())
    rows = torch.arange(len(values), device=values.device)[:, None].expand_as(values)
    candidates = rows.where(is_largest, len(values))
    first = rows.new_full(size, len(values)).scatter_reduce(0, index, candidates, "amin")
    return largest, first.where(first < len(values), -1)


def check_segments(segments: Tensor, count: int) -> None:
    """Checks that each row's segment exists."""
    wrong = ((segments < 0) | (segments >= count)).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(f"segments must lie in 0..{count - 1}, row {row} is {int(segments[row])}")


def group_pairs(
    offsets: Tensor,  # [P]
    inputs: Tensor,  # [P]
    outputs: Tensor,  # [P]
    num_outputs: int,
    volume: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sorts pairs by block of outputs, offset, output; returns them with the groups' starts."""
    blocks = -(-num_outputs // BLOCK)
    groups = outputs // BLOCK * volume + offsets
    order = (groups * max(1, num_outputs) + outputs).argsort(dim=0, stable=True)
    counts = torch.bincount(groups, minlength=blocks * volume)
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(dim=0)])
    return inputs[order].int(), outputs[order].int(), starts


def centred(kernel: Sequence[int], dilation: Sequence[int]) -> list[int]:
    """The padding that puts an odd kernel around each voxel."""
    return [size // 2 * step for size, step in zip(kernel, dilation, strict=True)]


def kernel_steps(
    kernel: Sequence[int], dilation: Sequence[int], device: torch.device
) -> Tensor:  # [V, 3]
    """Where the places of a kernel lie, from its first one."""
    axes = [torch.arange(size, device=device) for size in kernel]
    return torch.cartesian_prod(*axes) * torch.tensor(dilation, device=device)


def submanifold_map(
    voxels: Tensor,  # [M, 4]
    kernel: Sequence[int],
    dilation: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs (inputs, outputs, starts) of a kernel of odd sizes around each voxel."""
    count, device = len(voxels), voxels.device
    steps = kernel_steps(kernel, dilation, device)
    steps = steps - torch.tensor(centred(kernel, dilation), device=device)
    around = voxels[:, None, 1:].long() + steps  # [M, V, 3]
    scenes = voxels[:, None, :1].expand(-1, len(steps), 1)
    neighbours = torch.cat([scenes, around], dim=2).view(-1, 4)
    _, rows = torch.unique(torch.cat([voxels, neighbours]), dim=0, return_inverse=True)
    _check_distinct(rows[:count])
    row_of = rows.new_full((len(rows),), -1)
    row_of[rows[:count]] = torch.arange(count, device=device)
    table = row_of[rows[count:]].view(count, len(steps))
    outputs, offsets = (table >= 0).nonzero(as_tuple=True)
    return group_pairs(offsets, table[outputs, offsets], outputs, count, len(steps))


def kernel_map(
    voxels: Tensor,  # [M, 4]
    first: Sequence[int],
    last: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> tuple[Tensor, ...]:
    """The outputs that voxels reach, and the pairs down to and up from them."""
    _check_distinct(torch.unique(voxels, dim=0, return_inverse=True)[1])
    rows, offsets, places = reached(voxels, first, last, kernel, stride, padding, dilation)
    outputs, parents = voxelize(places, voxels[rows, 0])
    volume = math.prod(kernel)
    down = group_pairs(offsets, rows, parents, len(outputs), volume)
    up = group_pairs(offsets, parents, rows, len(voxels), volume)
    return outputs, *down, *up


def reached(
    voxels: Tensor,  # [M, 4]
    first: Sequence[int],
    last: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor]:
    """All pairs: rows of voxels [P], kernel offsets [P], and places of outputs [P, 3]."""
    low, high, step, margin = (
        torch.tensor(numbers, device=voxels.device) for numbers in (first, last, stride, padding)
    )
    moved = voxels[:, None, 1:] + margin - kernel_steps(kernel, dilation, voxels.device)
    places = moved.div(step, rounding_mode="floor")  # [M, V, 3]
    is_met = (places * step == moved) & (places >= low) & (places <= high)
    rows, offsets = is_met.all(dim=2).nonzero(as_tuple=True)
    return rows, offsets, places[rows, offsets].to(voxels.dtype)


def _check_distinct(rows: Tensor) -> None:
    if len(rows) and int(torch.bincount(rows).max()) > 1:
        raise ValueError("voxels must be distinct, some are the same")


def pair_offsets(starts: Tensor, volume: int, is_mirrored: bool) -> Tensor:  # [P]
    """Each pair's kernel offset."""
    groups = torch.arange(len(starts) - 1, device=starts.device)
    offsets = groups.repeat_interleave(starts.diff()) % volume
    return volume - 1 - offsets if is_mirrored else offsets


@outside_autocast
def sparse_conv(
    features: Tensor,  # [M, C]
    weight: Tensor,  # [V, C, D]
    bias: Tensor | None,  # [D]
    residual: Tensor | None,  # [M', D]
    relu: bool,
    num_outputs: int,
    inputs: Tensor,  # [P]
    outputs: Tensor,  # [P]
    starts: Tensor,  # [blocks * V + 1]
    is_mirrored: bool,
) -> Tensor:  # [M', D]
    """Sums the features of each output's inputs, times their offsets' weights."""
    offsets = pair_offsets(starts, len(weight), is_mirrored)
    out = features.new_zeros(num_outputs, weight.shape[2])
    for offset, matrix in enumerate(weight):
        here = offsets == offset
        out = out.index_add(0, outputs[here], features[inputs[here]] @ matrix)
    out = out if bias is None else out + bias
    out = out if residual is None else out + residual
    return out.relu() if relu else out


@outside_autocast
def sparse_conv_weight_grad(
    features: Tensor,  # [M, C]
    grad: Tensor,  # [M', D]
    volume: int,
    inputs: Tensor,  # [P]
    outputs: Tensor,  # [P]
    starts: Tensor,  # [blocks * V + 1]
    is_mirrored: bool,
) -> Tensor:  # [V, C, D]
    """The gradient of each offset's weight."""
    offsets = pair_offsets(starts, volume, is_mirrored)
    selections = [offsets == offset for offset in range(volume)]
    return torch.stack([features[inputs[s]].T @ grad[outputs[s]] for s in selections])
