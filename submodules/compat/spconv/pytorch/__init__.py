"""``import spconv.pytorch as spconv``: 3D layers of spconv 2 on refer3d's ops."""

from typing import Any

from spconv.pytorch import conv, core, modules, pool
from spconv.pytorch.conv import SparseConv3d, SparseConvolution, SparseInverseConv3d, SubMConv3d
from spconv.pytorch.core import IndiceData, SparseConvTensor
from spconv.pytorch.modules import (
    RemoveGrid,
    SparseBatchNorm,
    SparseIdentity,
    SparseModule,
    SparseReLU,
    SparseSequential,
    ToDense,
)
from spconv.pytorch.pool import SparseMaxPool, SparseMaxPool3d

__all__ = [
    "IndiceData",
    "RemoveGrid",
    "SparseBatchNorm",
    "SparseConv3d",
    "SparseConvTensor",
    "SparseConvolution",
    "SparseIdentity",
    "SparseInverseConv3d",
    "SparseMaxPool",
    "SparseMaxPool3d",
    "SparseModule",
    "SparseReLU",
    "SparseSequential",
    "SubMConv3d",
    "ToDense",
    "conv",
    "core",
    "modules",
    "pool",
]

_ABSENT = {
    f"{layer}{dimensions}d"
    for layer in (
        *("SparseConv", "SubMConv", "SparseInverseConv", "SparseConvTranspose"),
        *("SparseMaxPool", "SparseAvgPool"),
    )
    for dimensions in (1, 2, 3, 4)
} - set(__all__)
"""Layers of spconv that we do not have. Programs import lists of all layers and use a few."""


def __getattr__(name: str) -> Any:
    if name not in _ABSENT:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def refuse(*_: Any, **__: Any) -> None:
        raise NotImplementedError(
            f"{name} is not in refer3d-compat, which has SubMConv3d, SparseConv3d, "
            "SparseInverseConv3d and SparseMaxPool3d; install spconv in its place"
        )

    return type(name, (SparseModule,), {"__init__": refuse})
