"""Checks of an op's arguments, and the way from tensors to raw memory."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

T = TypeVar("T")


def check_shape(name: str, tensor: Tensor, shape: Sequence[int | None]) -> None:
    """Checks the shape of the argument ``name``; None stands for any size.

    Raises:
        ValueError: ``conics must have shape [3, 3], got [3, 2]``.
    """
    if tensor.dim() != len(shape) or any(
        want is not None and want != got for want, got in zip(shape, tensor.shape, strict=True)
    ):
        expected = ", ".join("*" if size is None else str(size) for size in shape)
        raise ValueError(f"{name} must have shape [{expected}], got {list(tensor.shape)}")


def check_same(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    """Checks that the argument ``name`` has the device and dtype of ``other_name``.

    Raises:
        ValueError: ``conics must match means2d (cpu, float32), got cpu, float64``.
    """
    if tensor.device != other.device or tensor.dtype != other.dtype:
        expected, got = (f"{t.device}, {str(t.dtype)[6:]}" for t in (other, tensor))
        raise ValueError(f"{name} must match {other_name} ({expected}), got {got}")


def check_real(name: str, tensor: Tensor) -> None:
    """Checks that the argument ``name`` has one of the two dtypes that compiled ops compute in.

    Raises:
        ValueError: ``means2d must be float32 or float64, got bfloat16``.
    """
    if tensor.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{name} must be float32 or float64, got {str(tensor.dtype)[6:]}")


def check_constant(name: str, tensor: Tensor) -> None:
    """Checks that the argument ``name``, which gets no gradients, requires none.

    Raises:
        ValueError: ``Ks gets no gradients; detach it``.
    """
    if tensor.requires_grad and torch.is_grad_enabled():
        raise ValueError(f"{name} gets no gradients; detach it")


def in_precision_of(tensor: Tensor, like: Tensor) -> Tensor:
    """Under autocast ``tensor`` in the dtype of ``like``: an op keeps its own precision there."""
    is_cast = torch.is_autocast_enabled(tensor.device.type)
    return tensor.to(like.dtype) if is_cast and tensor.is_floating_point() else tensor


def outside_autocast(op: Callable[..., T]) -> Callable[..., T]:
    """An op in plain PyTorch that keeps its precision under autocast, as compiled ones do.

    Its first argument is a tensor.
    """

    @functools.wraps(op)
    def call(tensor: Tensor, *rest: Any, **options: Any) -> T:
        with torch.autocast(tensor.device.type, enabled=False):
            return op(tensor, *rest, **options)

    return call


def as_array(tensor: Tensor) -> np.ndarray:
    """The memory of a CPU tensor, copied only where its rows do not follow one another."""
    return tensor.detach().contiguous().numpy()
