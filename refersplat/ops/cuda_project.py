"""Projection and colours on a GPU: one thread for each Gaussian."""

from __future__ import annotations

import torch
from torch import Tensor

from refer3d.native.cuda import Kernels, blocks_for
from refer3d.native.cuda.launcher import REALS

THREADS = 128


def _run(
    gpu: Kernels,
    kernel: str,
    count: int,
    like: Tensor,
    *arguments: Tensor | float | None,
    **defines: int,
) -> None:
    if count:
        blocks, real = blocks_for(count, THREADS), REALS[like.dtype]
        gpu.launch("project", kernel, blocks, THREADS, *arguments, REAL=real, **defines)


def project(
    gpu: Kernels,
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    view: Tensor,
    lens: list[float],
    width: int,
    height: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Centres [N, 2], conics [N, 3], depths [N] and radii [N]."""
    inputs = [t.contiguous() for t in (means, quats, scales, view)]
    count = len(means)
    outputs = (
        *(means.new_empty(count, 2), means.new_empty(count, 3), means.new_empty(count)),
        means.new_empty(count, dtype=torch.int32),
    )
    numbers = [*lens, float(width), float(height), count]
    _run(gpu, "project_all", count, means, *inputs, *numbers, *outputs)
    return outputs


def project_backward(
    gpu: Kernels,
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    view: Tensor,
    lens: list[float],
    width: int,
    height: int,
    grad_means2d: Tensor,
    grad_conics: Tensor,
    grad_depths: Tensor,
    has_view: bool,
) -> tuple[Tensor, ...]:
    """Gradients of means, quats, scales and, with ``has_view``, the view's upper rows [3, 4]."""
    inputs = [t.contiguous() for t in (means, quats, scales, view)]
    grads = [t.contiguous() for t in (grad_means2d, grad_conics, grad_depths)]
    outputs = tuple(torch.empty_like(t) for t in inputs[:3])
    views = means.new_empty(len(means), 3, 4) if has_view else None
    numbers = [*lens, float(width), float(height), len(means)]
    arguments = (*inputs, *numbers, *grads, *outputs, views)
    _run(gpu, "project_all_backward", len(means), means, *arguments)
    return *outputs, means.new_zeros(0, 4) if views is None else views.sum(dim=0)


def shade(gpu: Kernels, means: Tensor, sh: Tensor, position: Tensor, degree: int) -> Tensor:
    """Colours [N, 3] of spherical harmonics."""
    inputs = [t.contiguous() for t in (means, sh, position)]
    colors = means.new_empty(len(means), 3)
    numbers = (sh.shape[1], len(means))
    _run(gpu, "shade_all", len(means), means, *inputs, *numbers, colors, DEGREE=degree)
    return colors


def shade_backward(
    gpu: Kernels,
    means: Tensor,
    sh: Tensor,
    position: Tensor,
    degree: int,
    colors: Tensor,
    grad_colors: Tensor,
) -> tuple[Tensor, Tensor]:
    """Gradients of means and harmonics."""
    inputs = [t.contiguous() for t in (means, sh, position)]
    outputs = (torch.empty_like(inputs[0]), torch.empty_like(inputs[1]))
    numbers = (sh.shape[1], len(means))
    grads = (colors.contiguous(), grad_colors.contiguous())
    arguments = (*inputs, *numbers, *grads, *outputs)
    _run(gpu, "shade_all_backward", len(means), means, *arguments, DEGREE=degree)
    return outputs
