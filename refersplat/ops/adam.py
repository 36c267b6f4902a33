"""Adam (Kingma & Ba 2015) for rows whose columns have learning rates of their own."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from refer3d.native import as_array, check_same, check_shape, num_threads, operator
from refer3d.native.cuda import Kernels, blocks_for
from refer3d.native.cuda.launcher import REALS

BETAS = (0.9, 0.999)
THREADS = 256
EPSILON = 1e-15
"""Tiny, as 3D Gaussian Splatting sets it: its gradients are small."""


def adam_step(
    parameter: Tensor,  # [N, ...]
    gradient: Tensor,  # [N, ...]
    first: Tensor,  # [N, ...]
    second: Tensor,  # [N, ...]
    rates: Tensor,  # [D]
    step: int,
) -> None:
    """Moves ``parameter`` against its gradient and updates its moments, in place.

    Args:
        parameter: Contiguous, like the moments.
        gradient: Of the loss, by ``parameter``.
        first: Running mean of the gradients.
        second: Running mean of their squares.
        rates: Learning rate of each of the D numbers in a row.
        step: Counted from 1.

    Raises:
        ValueError: If shapes, dtypes or devices do not match.
    """
    for name, tensor in (("gradient", gradient), ("first", first), ("second", second)):
        check_shape(name, tensor, parameter.shape)
        check_same(name, tensor, "parameter", parameter)
    check_shape("rates", rates, (math.prod(parameter.shape[1:]),))
    check_same("rates", rates, "parameter", parameter)
    for name, tensor in (("parameter", parameter), ("first", first), ("second", second)):
        if not tensor.is_contiguous():
            raise ValueError(f"{name} must be contiguous, since it is written in place")
    _adam(parameter, gradient, first, second, rates, step)
    for tensor in (parameter, first, second):  # so that a backward pass through them is refused
        torch.autograd.graph.increment_version(tensor)


def adam_reference(
    parameter: Tensor, gradient: Tensor, first: Tensor, second: Tensor, rates: Tensor, step: int
) -> None:
    """The step in plain PyTorch."""
    first.lerp_(gradient, 1 - BETAS[0])
    second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
    root = second.sqrt() / math.sqrt(1 - BETAS[1] ** step)
    sizes = rates.view(parameter.shape[1:]) / (1 - BETAS[0] ** step)
    parameter.sub_(sizes * first / (root + EPSILON))


@operator("refersplat::adam", reference=adam_reference, mutates=("parameter", "first", "second"))
def _adam(
    parameter: Tensor, gradient: Tensor, first: Tensor, second: Tensor, rates: Tensor, step: int
) -> None:
    return None


@_adam.cpu
def _(native: Any, *inputs: Any) -> None:
    *tensors, step = inputs
    native.adam(*map(as_array, tensors), *BETAS, EPSILON, step, num_threads())


@_adam.cuda
def _(gpu: Kernels, *inputs: Any) -> None:
    *tensors, step = inputs
    size, dtype = tensors[0].numel(), tensors[0].dtype
    if not size:
        return
    unbias = 1 / (1 - BETAS[0] ** step)
    root = 1 / math.sqrt(1 - BETAS[1] ** step)
    arguments = (*(t.contiguous() for t in tensors), len(tensors[4]), size)
    numbers = (*BETAS, EPSILON, unbias, root)
    blocks, real = blocks_for(size, THREADS), REALS[dtype]
    gpu.launch("adam", "adam", blocks, THREADS, *arguments, *numbers, REAL=real)
