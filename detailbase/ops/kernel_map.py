"""Pairs of voxels of a sparse convolution: built once per level, shared by all its layers."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from detailbase.ops import cuda_voxels, reference
from detailbase.ops.reference import BLOCK
from detailbase.ops.voxelize import check_integers
from refer3d.native import as_array, check_shape, num_threads, operator

UNBOUNDED = (2**62,) * 3


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


@torch.compiler.disable()
def submanifold_map(voxels: Tensor) -> KernelMap:  # [M, 4]
    """The map of a 3 x 3 x 3 convolution whose outputs are its inputs.

    Kernel offset 9 (dx + 1) + 3 (dy + 1) + dz + 1 reaches the voxel at p + (dx, dy, dz), as in a
    weight [..., 3, 3, 3] whose last three dimensions are x, y, z.

    Args:
        voxels: Distinct (batch, x, y, z), int32 or int64, in any order; fastest in ``voxelize``'s.

    Raises:
        ValueError: If the shape or dtype does not fit, voxels occur twice or span too much.
    """
    _check_voxels(voxels)
    pairs = Pairs(*_submanifold_map(voxels))
    # Output p meets input q under an offset just as output q meets input p under the opposite one.
    mirrored = replace(pairs, is_mirrored=True)
    return KernelMap(pairs, mirrored, 27, len(voxels), len(voxels))


@torch.compiler.disable()
def strided_map(
    voxels: Tensor,  # [M, 4]
    shape: Sequence[int] = UNBOUNDED,
) -> tuple[Tensor, KernelMap]:
    """The voxels of twice the size, and the map of a 2 x 2 x 2 convolution with stride 2 to them.

    Voxel p belongs to floor(p / 2), under kernel offset 4 dx + 2 dy + dz with d = p mod 2. The
    map's ``inverse()`` leads back up.

    Args:
        voxels: Distinct (batch, x, y, z), int32 or int64, in any order.
        shape: Voxels of the grid along x, y, z. Where one is odd, its last plane fills no coarse
            voxel and is left out, as spconv does it.

    Returns:
        coarse: [M', 4], in Morton's order.
        kernel_map: From ``voxels`` to ``coarse``.

    Raises:
        ValueError: If the shape or dtype does not fit, voxels occur twice or span too much.
    """
    _check_voxels(voxels)
    if len(shape) != 3 or min(shape) < 0:
        raise ValueError(f"shape must be three sizes, got {tuple(shape)}")
    coarse, *pairs = _strided_map(voxels, list(shape))
    return coarse, KernelMap(Pairs(*pairs[:3]), Pairs(*pairs[3:]), 8, len(voxels), len(coarse))


def _check_voxels(voxels: Tensor) -> None:
    check_shape("voxels", voxels, (None, 4))
    check_integers("voxels", voxels)


def _fake_pairs(voxels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    num_pairs, num_starts = (torch.library.get_ctx().new_dynamic_size() for _ in range(2))
    inputs = voxels.new_empty(num_pairs, dtype=torch.int32)
    return inputs, torch.empty_like(inputs), voxels.new_empty(num_starts, dtype=torch.int64)


@operator("detailbase::submanifold_map", reference=reference.submanifold_map)
def _submanifold_map(voxels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, outputs and starts of :class:`Pairs`."""
    return _fake_pairs(voxels)


@_submanifold_map.cpu
def _(native: Any, voxels: Tensor) -> tuple[Tensor, ...]:
    arrays = native.submanifold_map(as_array(voxels), BLOCK, num_threads())
    return tuple(map(torch.from_numpy, arrays))


_submanifold_map.cuda(cuda_voxels.submanifold_map)


@operator("detailbase::strided_map", reference=reference.strided_map)
def _strided_map(
    voxels: Tensor,
    shape: typing.Sequence[int],  # the only name that PyTorch 2.6 reads for it
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The coarse voxels, and the three tensors each of the pairs down and up."""
    num_coarse = torch.library.get_ctx().new_dynamic_size()
    return voxels.new_empty(num_coarse, 4), *_fake_pairs(voxels), *_fake_pairs(voxels)


@_strided_map.cpu
def _(native: Any, voxels: Tensor, shape: list[int]) -> tuple[Tensor, ...]:
    arrays = native.strided_map(as_array(voxels), *shape, BLOCK, num_threads())
    coarse, *pairs = map(torch.from_numpy, arrays)
    return coarse.view(-1, 4), *pairs


_strided_map.cuda(cuda_voxels.strided_map)
