"""Convolutions. The order of the voxels of a result is not defined, as in spconv."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from detailbase.ops import kernel_map, output_shape, sparse_conv, submanifold_map
from detailbase.ops.kernel_map import Size, axis_sizes
from spconv.pytorch.core import IndiceData, SparseConvTensor
from spconv.pytorch.modules import SparseModule


class SparseWindow(SparseModule):
    """A layer with a kernel that moves over the grid."""

    def __init__(
        self,
        ndim: int,
        kernel_size: Size,
        stride: Size,
        padding: Size,
        dilation: Size,
        indice_key: str | None,
        subm: bool,
        record_voxel_count: bool,
        name: str | None,
    ) -> None:
        super().__init__(name)
        if ndim != 3:
            raise NotImplementedError(f"ndim must be 3 in refer3d-compat, got {ndim}")
        if record_voxel_count:
            raise NotImplementedError("record_voxel_count is not in refer3d-compat; leave it out")
        self.ndim = ndim
        self.kernel_size = axis_sizes("kernel_size", kernel_size)
        self.stride = axis_sizes("stride", stride)
        self.padding = axis_sizes("padding", padding, least=0)
        self.dilation = axis_sizes("dilation", dilation)
        self.indice_key = indice_key
        self.subm = subm

    def build(self, x: SparseConvTensor) -> IndiceData:
        """Builds the kernel map of this layer for a tensor.

        Raises:
            ValueError: If the kernel does not fit into the grid, or voxels occur twice.
        """
        sizes = (self.kernel_size, self.stride, self.padding, self.dilation)
        if self.subm:
            voxels, shape = x.indices, x.spatial_shape
            pairs = submanifold_map(voxels, self.kernel_size, self.dilation)
        else:
            shape = output_shape(x.spatial_shape, *sizes)
            if 0 in shape:
                raise ValueError(
                    f"spatial_shape {x.spatial_shape} has no room for kernel_size "
                    f"{self.kernel_size} with padding {self.padding}; the output's is {shape}"
                )
            voxels, pairs = kernel_map(x.indices, x.spatial_shape, *sizes)
        return IndiceData(pairs, x.indices, voxels, x.spatial_shape, shape, self.subm, *sizes)

    def result(self, x: SparseConvTensor, features: Tensor, data: IndiceData) -> SparseConvTensor:
        """The features at the outputs of a map, which is kept under this layer's key."""
        known = x.indice_dict
        if self.indice_key is not None and self.indice_key not in known:
            known = {**known, self.indice_key: data}
        rest = (data.out_spatial_shape, x.batch_size, x.grid, x.voxel_num, known)
        return SparseConvTensor(features, data.out_indices, *rest)

    def extra_repr(self) -> str:
        names = ("kernel_size", "stride", "padding", "dilation", "indice_key")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)


class SparseConvolution(SparseWindow):
    """A convolution of voxels.

    ``weight`` [D, V_x, V_y, V_z, C] meets the voxels as ``conv3d``'s does. One of 1 x 1 x 1 that
    neither strides nor inverts is read as its memory were [C, D]: spconv 2 does so, and so do the
    checkpoints that it has trained.

    Args:
        ndim: 3.
        in_channels: C.
        out_channels: D.
        kernel_size: V; odd where ``subm``.
        stride: Of the outputs' grid; without meaning where ``subm`` or ``inverse``.
        padding: Likewise: submanifold kernels are centred.
        dilation: Steps between the kernel's places.
        groups: 1.
        bias: Whether to add one.
        subm: Whether the outputs are the inputs' voxels (submanifold convolution).
        output_padding: 0.
        transposed: False.
        inverse: Whether to lead back to the voxels before the layer of the same ``indice_key``.
        indice_key: Name under which layers share a kernel map.
        record_voxel_count: False.
        name: Kept.
        device: Of the parameters.
        dtype: Of the parameters.
        **ignored: spconv's choices of an algorithm.

    Raises:
        ValueError: If a number does not fit.
        NotImplementedError: If an argument asks for what refer3d-compat does not have.
    """

    def __init__(
        self,
        ndim: int,
        in_channels: int,
        out_channels: int,
        kernel_size: Size = 3,
        stride: Size = 1,
        padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        subm: bool = False,
        output_padding: Size = 0,
        transposed: bool = False,
        inverse: bool = False,
        indice_key: str | None = None,
        record_voxel_count: bool = False,
        name: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **ignored: Any,
    ) -> None:
        window = (kernel_size, stride, padding, dilation)
        super().__init__(ndim, *window, indice_key, subm, record_voxel_count, name)
        if groups != 1 or transposed or any(axis_sizes("output_padding", output_padding, 0)):
            raise NotImplementedError(
                "groups, transposed and output_padding are not in refer3d-compat; install spconv "
                f"in its place: got {groups}, {transposed}, {output_padding}"
            )
        if inverse and indice_key is None:
            raise ValueError("indice_key must name the layer whose inverse this is, got None")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.inverse = inverse
        is_point = math.prod(self.kernel_size) == 1 and not inverse
        self.conv1x1 = is_point and (subm or math.prod(self.stride) == 1)
        if self.conv1x1 and not subm and any(self.padding):
            raise ValueError(f"padding of a 1 x 1 x 1 convolution must be 0, got {padding}")
        if subm and not all(size % 2 for size in self.kernel_size):
            raise ValueError(
                f"kernel_size of a submanifold convolution must be odd, got {self.kernel_size}"
            )
        size = (out_channels, *self.kernel_size, in_channels)
        self.weight = nn.Parameter(torch.empty(size, device=device, dtype=dtype))
        vector = torch.empty(out_channels, device=device, dtype=dtype)
        self.bias = nn.Parameter(vector) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws weight and bias as ``torch.nn.Conv3d`` does: within 1 / sqrt(C V) of 0."""
        bound = (self.in_channels * math.prod(self.kernel_size)) ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(
        self, x: SparseConvTensor, add_input: SparseConvTensor | None = None
    ) -> SparseConvTensor:
        """Convolves; adds the features of ``add_input``, which has the result's voxels.

        Raises:
            ValueError: If the channels do not fit, or the map of ``indice_key`` does not.
        """
        features = x.features
        if features.shape[1] != self.in_channels:
            raise ValueError(
                f"features must have {self.in_channels} channels, got {features.shape[1]}"
            )
        residual = None if add_input is None else add_input.features
        if self.conv1x1:
            product = features @ self.weight.view(self.in_channels, self.out_channels)
            terms = [term for term in (self.bias, residual) if term is not None]
            return x.replace_feature(sum(terms, start=product))
        data = self._find(x)
        matrices = self.weight.flatten(1, 3).permute(1, 2, 0)
        terms = {"bias": self.bias, "residual": residual}
        return self.result(x, sparse_conv(features, matrices, data.kernel_map, **terms), data)

    def _find(self, x: SparseConvTensor) -> IndiceData:
        """The map of this layer's key, else a new one."""
        data = x.find_indice_pair(self.indice_key)
        if data is None and not self.inverse:
            return self.build(x)
        where = f"indice_key {self.indice_key!r}"
        if data is None:
            raise ValueError(f"{where} names no layer before this one, got {list(x.indice_dict)}")
        if self.inverse:
            if data.is_subm:
                raise ValueError(f"{where} must be of a SparseConv3d or a pool, got a SubMConv3d's")
            data = _inverse(data)
        elif not (self.subm and data.is_subm):
            raise ValueError(f"{where} is taken; only submanifold convolutions share one")
        self._check("kernel_size", self.kernel_size, data.ksize)
        if self.subm:
            self._check("dilation", self.dilation, data.dilation)
        self._check("spatial_shape", x.spatial_shape, data.spatial_shape)
        same = x.indices is data.indices or torch.equal(x.indices, data.indices)
        if not same:
            raise ValueError(f"{where} is of other voxels than the input's; use another key")
        return data

    def _check(self, name: str, got: Sequence[int], expected: Sequence[int]) -> None:
        if got != expected:
            raise ValueError(
                f"{name} must be {expected} as in the layer of indice_key {self.indice_key!r}, "
                f"got {got}"
            )

    def extra_repr(self) -> str:
        sizes = f"{self.in_channels}, {self.out_channels}, {super().extra_repr()}"
        return sizes + ", bias=False" * (self.bias is None)


def _inverse(data: IndiceData) -> IndiceData:
    return IndiceData(
        data.kernel_map.inverse(),
        data.out_indices,
        data.indices,
        data.out_spatial_shape,
        data.spatial_shape,
        data.is_subm,
        *(data.ksize, data.stride, data.padding, data.dilation),
    )


class SparseConv3d(SparseConvolution):
    """A convolution to all voxels that its inputs reach."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        indice_key: str | None = None,
        **options: Any,
    ) -> None:
        window = (kernel_size, stride, padding, dilation)
        options = {"groups": groups, "bias": bias, "indice_key": indice_key, **options}
        super().__init__(3, in_channels, out_channels, *window, **options)


class SubMConv3d(SparseConvolution):
    """A convolution whose outputs are its inputs' voxels."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        indice_key: str | None = None,
        **options: Any,
    ) -> None:
        window = (kernel_size, stride, padding, dilation)
        options = {"groups": groups, "bias": bias, "indice_key": indice_key, **options}
        super().__init__(3, in_channels, out_channels, *window, subm=True, **options)


class SparseInverseConv3d(SparseConvolution):
    """A convolution back to the voxels before the layer with the same ``indice_key``."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        indice_key: str,
        bias: bool = True,
        **options: Any,
    ) -> None:
        options = {"indice_key": indice_key, "bias": bias, **options}
        super().__init__(3, in_channels, out_channels, kernel_size, inverse=True, **options)
