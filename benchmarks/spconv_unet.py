"""The same U-Net built of spconv's layers, to be timed beside ours where spconv is installed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detailbase.model.backbone import CHANNELS, norm, spatial_shape
from spconv.pytorch import (
    SparseConv3d,
    SparseConvTensor,
    SparseInverseConv3d,
    SparseSequential,
    SubMConv3d,
)


def _activated(channels: int, conv: nn.Module) -> SparseSequential:
    return SparseSequential(norm(channels), nn.ReLU(), conv)


def _around(channels: int, width: int, level: int, kernel: int = 3) -> SubMConv3d:
    key = f"around{level}" if kernel == 3 else None
    return SubMConv3d(channels, width, kernel, padding=kernel // 2, bias=False, indice_key=key)


class _Residual(nn.Module):
    def __init__(self, channels: int, width: int, level: int) -> None:
        super().__init__()
        self.widen = None if channels == width else _around(channels, width, level, 1)
        self.first = _activated(channels, _around(channels, width, level))
        self.second = _activated(width, _around(width, width, level))

    def forward(self, x: SparseConvTensor) -> SparseConvTensor:
        identity = x if self.widen is None else self.widen(x)
        out = self.second(self.first(x))
        return out.replace_feature(out.features + identity.features)


class _Level(nn.Module):
    def __init__(self, channels: Sequence[int], level: int = 0) -> None:
        super().__init__()
        width, *coarser = channels
        self.blocks = nn.Sequential(_Residual(width, width, level), _Residual(width, width, level))
        self.coarser = None
        if coarser:
            key, below = f"down{level}", coarser[0]
            down = SparseConv3d(width, below, 2, stride=2, bias=False, indice_key=key)
            up = SparseInverseConv3d(below, width, 2, bias=False, indice_key=key)
            self.down, self.up = _activated(width, down), _activated(below, up)
            self.coarser = _Level(coarser, level + 1)
            self.tail = nn.Sequential(
                _Residual(2 * width, width, level), _Residual(width, width, level)
            )

    def forward(self, x: SparseConvTensor) -> SparseConvTensor:
        x = self.blocks(x)
        if self.coarser is None:
            return x
        back = self.up(self.coarser(self.down(x)))
        return self.tail(x.replace_feature(torch.cat([x.features, back.features], dim=1)))


class SpconvUNet(nn.Module):
    """Takes what ``SparseUNet`` takes; spconv makes its maps of neighbours on the way."""

    def __init__(self, in_channels: int = 6, channels: Sequence[int] = CHANNELS) -> None:
        super().__init__()
        self.input = _around(in_channels, channels[0], 0)
        self.levels = _Level(channels)
        self.output = SparseSequential(norm(channels[0]), nn.ReLU())

    def forward(self, features: Tensor, voxels: Tensor) -> Tensor:  # [M, C], [M, 4] -> [M, D]
        x = SparseConvTensor(features, voxels.int(), spatial_shape(voxels), 1)
        return self.output(self.levels(self.input(x))).features
