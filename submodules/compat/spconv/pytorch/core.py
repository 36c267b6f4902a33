"""Tensors of voxels, which know the kernel maps that layers have built on the way."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from detailbase.ops import KernelMap
from refer3d.native import check_shape


@dataclass(frozen=True)
class IndiceData:
    """A kernel map, with the voxels and grids on its sides ("indices" are voxels, in spconv)."""

    kernel_map: KernelMap
    indices: Tensor
    """[M, 4], of the input."""
    out_indices: Tensor
    """[M', 4]."""
    spatial_shape: list[int]
    """The input's grid."""
    out_spatial_shape: list[int]
    is_subm: bool
    ksize: list[int]
    stride: list[int]
    padding: list[int]
    dilation: list[int]


class SparseConvTensor:
    """Features of the voxels of a batch of grids.

    Args:
        features: [M, C].
        indices: [M, 4] int32, distinct (batch, three coordinates), in any order.
        spatial_shape: The grid's size along these coordinates.
        batch_size: Number of grids, B.
        grid: Kept for programs that hand it on; nothing reads it.
        voxel_num: As ``grid``.
        indice_dict: The kernel maps by key. A layer's result has the maps of its input and its own.
        **ignored: Settings of spconv's timers and algorithms.

    Raises:
        ValueError: If a shape, dtype or device does not fit.
    """

    def __init__(
        self,
        features: Tensor,
        indices: Tensor,
        spatial_shape: Sequence[int],
        batch_size: int,
        grid: Tensor | None = None,
        voxel_num: Tensor | None = None,
        indice_dict: dict[Hashable, IndiceData] | None = None,
        **ignored: Any,
    ) -> None:
        check_shape("features", features, (None, None))
        check_shape("indices", indices, (len(features), 4))
        if indices.dtype != torch.int32:
            raise ValueError(
                f"indices must be int32, got {str(indices.dtype)[6:]}; pass indices.int()"
            )
        if indices.device != features.device:
            raise ValueError(
                f"indices must be on {features.device} like features, got {indices.device}"
            )
        if len(spatial_shape) != 3:
            raise ValueError(f"spatial_shape must be three sizes, got {tuple(spatial_shape)}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self._features = features
        self.indices = indices
        self.spatial_shape = [int(size) for size in spatial_shape]
        self.batch_size = batch_size
        self.grid = grid
        self.voxel_num = voxel_num
        self.indice_dict = {} if indice_dict is None else indice_dict

    @property
    def features(self) -> Tensor:
        """[M, C]; :meth:`replace_feature` makes a tensor with others."""
        return self._features

    @features.setter
    def features(self, value: Tensor) -> None:
        raise ValueError("features cannot be set; write x = x.replace_feature(features)")

    @property
    def spatial_size(self) -> int:
        """Number of voxels that the grid has room for."""
        x, y, z = self.spatial_shape
        return x * y * z

    @classmethod
    def from_dense(cls, x: Tensor) -> SparseConvTensor:
        """The voxels of a grid [B, X, Y, Z, C] that are not zero in all channels."""
        check_shape("x", x, (None,) * 5)
        indices = (x != 0).any(dim=4).nonzero()
        return cls(x[tuple(indices.T)], indices.int(), x.shape[1:4], len(x))

    def replace_feature(self, feature: Tensor) -> SparseConvTensor:
        """The same voxels with other features [M, C']."""
        rest = (self.grid, self.voxel_num, self.indice_dict)
        return SparseConvTensor(feature, self.indices, self.spatial_shape, self.batch_size, *rest)

    def shadow_copy(self) -> SparseConvTensor:
        """A tensor whose attributes can be set without effect on this one."""
        return self.replace_feature(self.features)

    def select_by_index(self, valid_indices: Tensor) -> SparseConvTensor:
        """Some of the voxels: a mask [M], or rows [M']. Kernel maps do not go with them."""
        features, indices = self.features[valid_indices], self.indices[valid_indices]
        return SparseConvTensor(features, indices, self.spatial_shape, self.batch_size)

    def find_indice_pair(self, key: Hashable) -> IndiceData | None:
        """The kernel map that a layer with this ``indice_key`` has built, or None."""
        return self.indice_dict.get(key)

    def dense(self, channels_first: bool = True) -> Tensor:
        """The grids [B, C, X, Y, Z], or [B, X, Y, Z, C], which are 0 where no voxel is."""
        size = (self.batch_size, *self.spatial_shape, self.features.shape[1])
        grids = self.features.new_zeros(size).index_put(
            self.indices.long().unbind(dim=1), self.features
        )
        return grids.permute(0, 4, 1, 2, 3).contiguous() if channels_first else grids

    def __add__(self, other: SparseConvTensor | Tensor) -> SparseConvTensor:
        features = other.features if isinstance(other, SparseConvTensor) else other
        return self.replace_feature(self.features + features)

    __radd__ = __add__

    def __repr__(self) -> str:
        return f"SparseConvTensor[shape={self.features.shape}]"
