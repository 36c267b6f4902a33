"""The interface of backbones, and the sparse 3D U-Net of SPFormer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from detailbase.model.norm import BatchNorm
from detailbase.ops import KernelMap, sparse_conv, strided_map, submanifold_map
from refer3d.native import outside_graphs

CHANNELS = (32, 64, 96, 128, 160)
EPS = 1e-4


class Backbone(Protocol):
    """A module that computes features of voxels, which know their surroundings."""

    width: int
    """C, the channels of the features."""

    def __call__(
        self,
        features: Tensor,  # [M, 6]
        voxels: Tensor,  # [M, 4]
        /,
    ) -> Tensor:  # [M, C]
        """Computes features.

        Args:
            features: Each voxel's colour (-1 to 1) and position (metres), the means of its points.
            voxels: Distinct (scene, x, y, z); voxels of several scenes stand together.
        """
        ...


class Level(NamedTuple):
    """The kernel maps of one voxel size."""

    around: KernelMap
    """3 x 3 x 3, within the level."""
    down: KernelMap | None
    """2 x 2 x 2 to the next level; None at the last."""


def build_levels(
    voxels: Tensor,  # [M, 4]
    shape: Sequence[int],
    count: int = len(CHANNELS),
) -> list[Level]:
    """Builds the maps that all layers of a U-Net share, finest level first.

    Args:
        voxels: Distinct (batch, x, y, z); fastest in the order of ``voxelize``.
        shape: The grid's size; see :func:`spatial_shape`.
        count: Number of levels.
    """
    levels = []
    for level in range(count):
        around, down = submanifold_map(voxels), None
        if level + 1 < count:
            voxels, down = strided_map(voxels, shape)
            shape = [size // 2 for size in shape]
        levels.append(Level(around, down))
    return levels


@outside_graphs
def spatial_shape(voxels: Tensor) -> list[int]:  # [M, 4]
    """Returns the grid of the published network: it begins at 0 and has at least 128 per axis.

    The size matters at its end, where :func:`~detailbase.ops.strided_map` leaves out a plane.
    """
    return [max(128, last + 1) for last in voxels[:, 1:].amax(dim=0).tolist()]


class SparseConv(nn.Module):
    """A convolution without bias; its weight is (out, kernel x, y, z, in)."""

    def __init__(self, channels: int, width: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, kernel, kernel, kernel, channels))
        nn.init.kaiming_uniform_(self.weight.view(width, -1), a=5**0.5)

    def matrices(self) -> Tensor:  # [V, C, D]
        """One matrix for each kernel offset, a view of the weight."""
        return self.weight.flatten(1, 3).permute(1, 2, 0)

    def forward(
        self,
        features: Tensor,  # [M, C]
        kernel_map: KernelMap,
        residual: Tensor | None = None,  # [M', D]
    ) -> Tensor:  # [M', D]
        return sparse_conv(features, self.matrices(), kernel_map, residual=residual)


class Conv1x1(nn.Module):
    """A change of width; its weight has the shape (out, 1, 1, 1, in).

    The published network, like SPFormer's, reads the memory of that weight as (in, out). So do we:
    otherwise published checkpoints would compute something else.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, 1, 1, 1, channels))
        nn.init.kaiming_uniform_(self.weight.view(width, -1), a=5**0.5)

    def forward(self, features: Tensor) -> Tensor:  # [M, C] -> [M, D]
        product = features @ self.weight.view(features.shape[1], -1)
        return product.to(features)  # autocast shortens it, but it is added to full features


def norm(channels: int) -> BatchNorm:
    return BatchNorm(channels, eps=EPS)


def scale_and_shift(layer: BatchNorm) -> tuple[Tensor, Tensor]:  # [C], [C]
    """Folds a batch norm in evaluation into ``scale * x + shift``."""
    mean, variance = layer.statistics
    scale = layer.weight * (variance + layer.eps).rsqrt()
    return scale, layer.bias - mean * scale


def activate(layer: BatchNorm, features: Tensor) -> Tensor:  # [M, C] -> [M, C]
    """Applies batch norm, then ReLU."""
    if layer.training or torch.is_grad_enabled():
        return layer(features).relu_()
    scale, shift = scale_and_shift(layer)
    return torch.addcmul(shift, features, scale).relu_()


class Residual(nn.Module):
    """Two pre-activated convolutions beside the identity, or beside a change of width."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.widen = None if channels == width else Conv1x1(channels, width)
        self.norm1, self.conv1 = norm(channels), SparseConv(channels, width, 3)
        self.norm2, self.conv2 = norm(width), SparseConv(width, width, 3)

    def forward(self, features: Tensor, around: KernelMap) -> Tensor:  # [M, C] -> [M, D]
        identity = features if self.widen is None else self.widen(features)
        features = activate(self.norm1, features)
        if self.training or torch.is_grad_enabled():
            features = activate(self.norm2, self.conv1(features, around))
        else:
            scale, shift = scale_and_shift(self.norm2)
            weight = self.conv1.matrices() * scale
            features = sparse_conv(features, weight, around, bias=shift, relu=True)
        return self.conv2(features, around, residual=identity)


class Blocks(nn.ModuleDict):
    """Two residual blocks, of which the first changes the width."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__({"block0": Residual(channels, width), "block1": Residual(width, width)})

    def forward(self, features: Tensor, around: KernelMap) -> Tensor:  # [M, C] -> [M, D]
        for block in self.values():
            features = block(features, around)
        return features


class UNetLevel(nn.Module):
    """One level, with all coarser ones inside."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        width, *coarser = channels
        self.blocks = Blocks(width, width)
        if coarser:
            self.down_norm, self.down = norm(width), SparseConv(width, coarser[0], 2)
            self.u = UNetLevel(coarser)
            self.up_norm, self.up = norm(coarser[0]), SparseConv(coarser[0], width, 2)
            self.blocks_tail = Blocks(2 * width, width)

    def forward(self, features: Tensor, levels: Sequence[Level]) -> Tensor:  # [M, C] -> [M, C]
        (around, down), *coarser = levels
        features = self.blocks(features, around)
        if down is None:
            return features
        below = self.down(activate(self.down_norm, features), down)
        below = activate(self.up_norm, self.u(below, coarser))
        features = torch.cat([features, self.up(below, down.inverse())], dim=1)
        return self.blocks_tail(features, around)


class SparseUNet(nn.Module):
    """Computes features of voxels by a U-Net of sparse convolutions.

    Kernel maps are built once per level and shared by its layers. In evaluation without gradients
    each block's inner batch norm and ReLU are folded into its first convolution.
    """

    def __init__(self, in_channels: int = 6, channels: Sequence[int] = CHANNELS) -> None:
        super().__init__()
        self.width = channels[0]
        self.num_levels = len(channels)
        self.input = SparseConv(in_channels, channels[0], 3)
        self.unet = UNetLevel(channels)
        self.output_norm = norm(channels[0])

    def forward(
        self,
        features: Tensor,  # [M, C]
        voxels: Tensor,  # [M, 4]
        levels: Sequence[Level] | None = None,
    ) -> Tensor:  # [M, D]
        """Computes features; ``levels`` are those of :func:`build_levels`, if built before."""
        if levels is None:
            levels = build_levels(voxels, spatial_shape(voxels), self.num_levels)
        features = self.input(features, levels[0].around)
        return activate(self.output_norm, self.unet(features, levels))
