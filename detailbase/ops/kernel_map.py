"""Pairs of voxels of a sparse convolution: built once per level, shared by all its layers."""

from __future__ import annotations

import math
import typing
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detailbase.ops import cuda_voxels, reference
from detailbase.ops.reference import BLOCK
from detailbase.ops.voxelize import check_integers
from refer3d.native import as_array, check_shape, num_threads, operator, outside_graphs

Size = int | Sequence[int]
"""One number for all axes, or one each for x, y, z."""
ENDS = 2**62
"""Places of a grid without ends lie within it of 0."""
MAX_SIZE = 2**15
"""Largest kernel, stride, padding and dilation; also the most offsets that a kernel has."""


@dataclass(frozen=True)
class Pairs:
    """Pairs of an input and an output voxel, grouped by block of outputs, then by kernel offset.

    Inside a group the outputs ascend, and none occurs twice.
    """

    inputs: Tensor
    """[P] int32, rows of the input."""
    outputs: Tensor
    """[P] int32, rows of the output."""
    starts: Tensor
    """[blocks * V + 1] int64, where the group of block b and offset v begins, at b * V + v."""
    is_mirrored: bool = False
    """True where offset v stands for V - 1 - v."""

    def offsets(self, volume: int) -> Tensor:
        """[P] int64, each pair's kernel offset."""
        return reference.pair_offsets(self.starts, volume, self.is_mirrored)


@dataclass(frozen=True)
class KernelMap:
    """The pairs of a sparse convolution, and the same read from output to input."""

    forward: Pairs
    backward: Pairs
    volume: int
    """Number of offsets of the kernel, V."""
    num_inputs: int
    num_outputs: int

    def inverse(self) -> KernelMap:
        """The map of the inverse convolution: outputs become inputs under the same offsets."""
        return KernelMap(
            self.backward, self.forward, self.volume, self.num_outputs, self.num_inputs
        )

    def to(self, device: torch.device | str) -> KernelMap:
        """The map on another device."""
        forward, backward = (
            replace(
                pairs,
                inputs=pairs.inputs.to(device),
                outputs=pairs.outputs.to(device),
                starts=pairs.starts.to(device),
            )
            for pairs in (self.forward, self.backward)
        )
        return replace(self, forward=forward, backward=backward)

    @property
    def num_pairs(self) -> int:
        """Products of a feature row with a weight matrix that a convolution takes."""
        return len(self.forward.inputs)


@outside_graphs
def submanifold_map(
    voxels: Tensor,  # [M, 4]
    kernel: Size = 3,
    dilation: Size = 1,
) -> KernelMap:
    """The map of a convolution whose outputs are its inputs.

    Kernel offset (i_x V_y + i_y) V_z + i_z of a V_x x V_y x V_z kernel reaches the voxel at
    p + dilation (i - (V - 1) / 2), as in a weight [..., V_x, V_y, V_z] whose last three dimensions
    are x, y, z.

    Args:
        voxels: Distinct (batch, x, y, z), int32 or int64, in any order; fastest in ``voxelize``'s.
        kernel: Odd sizes.
        dilation: Steps between the kernel's places.

    Raises:
        ValueError: If the shape or dtype does not fit, voxels occur twice or span too much, a
            kernel is even or a number out of range.
    """
    _check_voxels(voxels)
    sizes, steps = axis_sizes("kernel", kernel), axis_sizes("dilation", dilation)
    volume = _volume(sizes)
    if not all(size % 2 for size in sizes):
        raise ValueError(f"kernel of a submanifold map must have odd sizes, got {sizes}")
    pairs = Pairs(*_submanifold_map(voxels, sizes, steps))
    # Output p meets input q under an offset just as output q meets input p under the opposite one.
    mirrored = replace(pairs, is_mirrored=True)
    return KernelMap(pairs, mirrored, volume, len(voxels), len(voxels))


@outside_graphs
def kernel_map(
    voxels: Tensor,  # [M, 4]
    shape: Sequence[int] | None,
    kernel: Size,
    stride: Size = 1,
    padding: Size = 0,
    dilation: Size = 1,
) -> tuple[Tensor, KernelMap]:
    """The map of a convolution to all voxels that its inputs reach.

    Output o meets the input at o stride - padding + dilation i under kernel offset
    (i_x V_y + i_y) V_z + i_z, as in ``torch.nn.functional.conv3d``; the map's ``inverse()`` leads
    back.

    Args:
        voxels: Distinct (batch, x, y, z), int32 or int64, in any order; fastest in ``voxelize``'s.
        shape: Voxels of the grid along x, y, z from 0 on, which ends the outputs as
            :func:`output_shape` has it.
            None for a grid without ends, on both sides.
        kernel: V, the kernel's sizes.
        stride: Voxels of the input that an output's step takes.
        padding: Empty voxels on both sides of the grid.
        dilation: Steps between the kernel's places.

    Returns:
        outputs: [M', 4], in Morton's order, as ``voxelize`` has it.
        kernel_map: From ``voxels`` to ``outputs``.

    Raises:
        ValueError: If the shape or dtype does not fit, voxels occur twice or span too much, or a
            number is out of range.
    """
    _check_voxels(voxels)
    sizes = _all_sizes(kernel, stride, padding, dilation)
    volume = _volume(sizes[0])
    if shape is None:
        first, last = [-ENDS] * 3, [ENDS] * 3
    else:
        first, last = [0] * 3, [size - 1 for size in output_shape(shape, *sizes)]
    outputs, *pairs = _kernel_map(voxels, first, last, *sizes)
    ahead, back = Pairs(*pairs[:3]), Pairs(*pairs[3:])
    return outputs, KernelMap(ahead, back, volume, len(voxels), len(outputs))


def strided_map(
    voxels: Tensor,  # [M, 4]
    shape: Sequence[int] | None = None,
) -> tuple[Tensor, KernelMap]:
    """The map of a 2 x 2 x 2 convolution with stride 2: :func:`kernel_map` to twice the voxel size.

    Where a size of ``shape`` is odd, its last plane fills no coarse voxel and is left out, as in
    spconv.
    """
    return kernel_map(voxels, shape, 2, stride=2)


def output_shape(
    shape: Sequence[int],
    kernel: Size,
    stride: Size = 1,
    padding: Size = 0,
    dilation: Size = 1,
) -> list[int]:
    """The grid of a convolution's outputs, as in ``torch.nn.functional.conv3d``; 0 for none.

    Raises:
        ValueError: If a number is out of range.
    """
    if len(shape) != 3 or min(shape) < 0 or max(shape) > ENDS:
        raise ValueError(f"shape must be three sizes, got {tuple(shape)}")
    sizes = _all_sizes(kernel, stride, padding, dilation)
    return [
        max(0, (size + 2 * pad - gap * (window - 1) - 1) // step + 1)
        for size, window, step, pad, gap in zip(shape, *sizes, strict=True)
    ]


def axis_sizes(name: str, given: Size, least: int = 1) -> list[int]:
    """Checks one number or three, and returns three.

    Raises:
        ValueError: If there are more or fewer, or one is out of range.
    """
    sizes = [given] * 3 if isinstance(given, int) else [int(size) for size in given]
    if len(sizes) != 3 or min(sizes) < least or max(sizes) > MAX_SIZE:
        raise ValueError(f"{name} must be one or three numbers in {least}..{MAX_SIZE}, got {given}")
    return sizes


def _all_sizes(kernel: Size, stride: Size, padding: Size, dilation: Size) -> list[list[int]]:
    return [
        axis_sizes("kernel", kernel),
        axis_sizes("stride", stride),
        axis_sizes("padding", padding, least=0),
        axis_sizes("dilation", dilation),
    ]


def _volume(kernel: list[int]) -> int:
    volume = math.prod(kernel)
    if volume > MAX_SIZE:
        raise ValueError(f"kernel must have at most {MAX_SIZE} offsets, got {kernel}")
    return volume


def _check_voxels(voxels: Tensor) -> None:
    check_shape("voxels", voxels, (None, 4))
    check_integers("voxels", voxels)


def _fake_pairs(voxels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    num_pairs, num_starts = (torch.library.get_ctx().new_dynamic_size() for _ in range(2))
    inputs = voxels.new_empty(num_pairs, dtype=torch.int32)
    return inputs, torch.empty_like(inputs), voxels.new_empty(num_starts, dtype=torch.int64)


def _numbers(*rows: list[int]) -> np.ndarray:
    return np.array(rows, dtype=np.int64)


@operator("detailbase::submanifold_map", reference=reference.submanifold_map)
def _submanifold_map(
    voxels: Tensor,
    kernel: typing.Sequence[int],  # the only name that PyTorch 2.6 reads for it
    dilation: typing.Sequence[int],
) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, outputs and starts of :class:`Pairs`."""
    return _fake_pairs(voxels)


@_submanifold_map.cpu
def _(native: Any, voxels: Tensor, kernel: list[int], dilation: list[int]) -> tuple[Tensor, ...]:
    padding = reference.centred(kernel, dilation)
    numbers = _numbers(kernel, [1] * 3, padding, dilation)
    arrays = native.submanifold_map(as_array(voxels), numbers, BLOCK, num_threads())
    return tuple(map(torch.from_numpy, arrays))


_submanifold_map.cuda(cuda_voxels.submanifold_map)


@operator("detailbase::kernel_map", reference=reference.kernel_map)
def _kernel_map(
    voxels: Tensor,
    first: typing.Sequence[int],
    last: typing.Sequence[int],
    kernel: typing.Sequence[int],
    stride: typing.Sequence[int],
    padding: typing.Sequence[int],
    dilation: typing.Sequence[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The outputs from ``first`` to ``last``, and three tensors each of the pairs down and up."""
    num_outputs = torch.library.get_ctx().new_dynamic_size()
    return voxels.new_empty(num_outputs, 4), *_fake_pairs(voxels), *_fake_pairs(voxels)


@_kernel_map.cpu
def _(
    native: Any, voxels: Tensor, first: list[int], last: list[int], *sizes: list[int]
) -> tuple[Tensor, ...]:
    grid = _numbers(first, last)
    arrays = native.kernel_map(as_array(voxels), _numbers(*sizes), grid, BLOCK, num_threads())
    outputs, *pairs = map(torch.from_numpy, arrays)
    return outputs.view(-1, 4), *pairs


_kernel_map.cuda(cuda_voxels.kernel_map)
