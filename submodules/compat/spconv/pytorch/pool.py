"""Pooling. The order of the voxels of a result is not defined, as in spconv."""

from __future__ import annotations

from typing import Any

from detailbase.ops import segment_reduce
from detailbase.ops.kernel_map import Size
from spconv.pytorch.conv import SparseWindow
from spconv.pytorch.core import SparseConvTensor


class SparseMaxPool(SparseWindow):
    """The largest value of each channel among the voxels that the kernel meets.

    A voxel that is not there does not count, so results may be negative. Of equal values the first
    voxel's gets the gradient.

    Args:
        ndim: 3.
        kernel_size: V.
        stride: Of the outputs' grid; None for ``kernel_size``.
        padding: Empty voxels on both sides of the grid.
        dilation: Steps between the kernel's places.
        indice_key: Name of the kernel map, for a ``SparseInverseConv3d``.
        subm: Whether the outputs are the inputs' voxels.
        record_voxel_count: False.
        name: Kept.
        **ignored: spconv's choice of an algorithm.
    """

    def __init__(
        self,
        ndim: int,
        kernel_size: Size = 3,
        stride: Size | None = 1,
        padding: Size = 0,
        dilation: Size = 1,
        indice_key: str | None = None,
        subm: bool = False,
        record_voxel_count: bool = False,
        name: str | None = None,
        **ignored: Any,
    ) -> None:
        stride = kernel_size if stride is None else stride
        window = (kernel_size, stride, padding, dilation)
        super().__init__(ndim, *window, indice_key, subm, record_voxel_count, name)

    def forward(self, x: SparseConvTensor) -> SparseConvTensor:
        """Pools.

        Raises:
            ValueError: If ``indice_key`` is taken.
        """
        if x.find_indice_pair(self.indice_key) is not None:
            raise ValueError(f"indice_key {self.indice_key!r} is taken; use another one")
        data = self.build(x)
        pairs = data.kernel_map.forward
        values = x.features[pairs.inputs]
        count = data.kernel_map.num_outputs
        return self.result(x, segment_reduce(values, pairs.outputs.long(), count, "max"), data)


class SparseMaxPool3d(SparseMaxPool):
    """Max pooling to all voxels that its inputs reach."""

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        indice_key: str | None = None,
        **options: Any,
    ) -> None:
        window = (kernel_size, stride, padding, dilation)
        super().__init__(3, *window, indice_key=indice_key, **options)
