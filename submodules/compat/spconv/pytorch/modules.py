"""Modules that take sparse tensors, and their sequence with modules that take features."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from spconv.pytorch.core import SparseConvTensor


class SparseModule(nn.Module):
    """A module that takes a sparse tensor in a :class:`SparseSequential`."""

    def __init__(self, name: str | None = None) -> None:
        super().__init__()
        self.name = name


class SparseSequential(nn.Sequential, SparseModule):
    """Modules one after the other, by number, from an ordered dict or by name.

    Those that are no :class:`SparseModule` take the features alone, and are left out where there
    are no voxels.
    """

    def __init__(self, *args: Any, **kwargs: nn.Module) -> None:
        super().__init__(*args)
        for name, module in kwargs.items():
            self.add(module, name)

    def add(self, module: nn.Module, name: str | None = None) -> None:
        """Appends a module; without a name its number is its name."""
        name = str(len(self)) if name is None else name
        if name in self._modules:
            raise ValueError(f"name must be new, {name!r} is there already")
        self.add_module(name, module)

    def forward(self, x: Any) -> Any:
        for module in self:
            if is_spconv_module(module) or not isinstance(x, SparseConvTensor):
                x = module(x)
            elif len(x.indices):
                x = x.replace_feature(module(x.features))
        return x


class _OnFeatures(nn.Module):
    def forward(self, x: SparseConvTensor | Tensor) -> Any:
        if isinstance(x, SparseConvTensor):
            return x.replace_feature(super().forward(x.features))
        return super().forward(x)


class SparseBatchNorm(_OnFeatures, nn.BatchNorm1d):
    """Batch norm of a sparse tensor or of features."""


class SparseReLU(_OnFeatures, nn.ReLU):
    """ReLU of a sparse tensor or of features."""


class SparseIdentity(nn.Identity):
    """Returns what it is given."""


class ToDense(SparseModule):
    """Returns the grids [B, C, X, Y, Z]."""

    def forward(self, x: SparseConvTensor) -> Tensor:
        return x.dense()


class RemoveGrid(SparseModule):
    """Forgets the ``grid`` that was handed on."""

    def forward(self, x: SparseConvTensor) -> SparseConvTensor:
        x.grid = None
        return x


def is_spconv_module(module: nn.Module) -> bool:
    """True where a module takes a sparse tensor."""
    return isinstance(module, SparseModule | SparseBatchNorm | SparseReLU | SparseIdentity)
