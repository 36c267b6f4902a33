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
    *arguments: Tensor | float,
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
    inputs = [t.detach().contiguous() for t in (means, quats, scales, view)]
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
    *grads: Tensor,
) -> tuple[Tensor, ...]:
    """Gradients of means, quats and scales, from those of centres, conics and depths."""
    inputs = [t.detach().contiguous() for t in (means, quats, scales, view)]
    outputs = tuple(torch.empty_like(t) for t in inputs[:3])
    numbers = [*lens, float(width), float(height), len(means)]
    given = [grad.contiguous() for grad in grads]
    _run(gpu, "project_all_backward", len(means), means, *inputs, *numbers, *given, *outputs)
    return outputs


def shade(gpu: Kernels, means: Tensor, sh: Tensor, position: Tensor, degree: int) -> Tensor:
    """Colours [N, 3] of spherical harmonics."""
    inputs = [t.detach().contiguous() for t in (means, sh, position)]
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
    inputs = [t.detach().contiguous() for t in (means, sh, position)]
    outputs = (torch.empty_like(inputs[0]), torch.empty_like(inputs[1]))
    numbers = (sh.shape[1], len(means))
    given = (colors.detach().contiguous(), grad_colors.contiguous())
    arguments = (*inputs, *numbers, *given, *outputs)
    _run(gpu, "shade_all_backward", len(means), means, *arguments, DEGREE=degree)
    return outputs
