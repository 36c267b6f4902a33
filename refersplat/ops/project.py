"""Projection of Gaussians onto the image, and their colours seen from a camera."""

from __future__ import annotations

import typing
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from refer3d.native import apply, check_real, check_same, check_shape, fill, is_compiled, operator
from refer3d.native.cuda import Kernels, blocks_for
from refer3d.native.cuda.launcher import REALS
from refersplat.cameras import Camera
from refersplat.ops import reference

THREADS = 128
"""Threads of a block of the CUDA kernels."""


class Projected(NamedTuple):
    """Gaussians on the image."""

    means2d: Tensor
    """[N, 2] centres in pixels, x then y; pixel centres lie at integers."""
    conics: Tensor
    """[N, 3] inverse 2D covariances (xx, xy, yy) in 1/pixel^2."""
    depths: Tensor
    """[N] distances along the camera's axis."""
    radii: Tensor
    """[N] int32, three standard deviations in pixels, 0 where these do not reach the image.
    Densification reads them; a Gaussian is drawn as far as it adds 1/255. No gradient."""


def project(
    means: Tensor,  # [N, 3]
    quats: Tensor,  # [N, 4]
    scales: Tensor,  # [N, 3]
    camera: Camera,
) -> Projected:
    """Projects Gaussians (EWA splatting, Zwicker et al. 2001, as in Kerbl et al. 2023).

    Differentiable in the three tensors and in ``camera.world_to_camera``, whose upper three rows
    are taken for any matrix. A Gaussian behind the near plane (depth 0.2) or off the image has
    radius 0.

    Args:
        means: Centres in the world frame.
        quats: Rotations (w, x, y, z) of any length but zero.
        scales: Standard deviations along the Gaussian's axes, in the scene's unit.
        camera: Pose, lens and size of the image.

    Raises:
        ValueError: If a shape, dtype or device does not fit the others.
    """
    check_shape("means", means, (None, 3))
    check_real("means", means)
    check_shape("quats", quats, (len(means), 4))
    check_shape("scales", scales, (len(means), 3))
    check_same("quats", quats, "means", means)
    check_same("scales", scales, "means", means)
    check_shape("camera.world_to_camera", camera.world_to_camera, (4, 4))
    lens = [camera.fx, camera.fy, camera.cx, camera.cy]
    view = camera.world_to_camera.to(means)
    arguments = (means, quats, scales, view, lens, camera.width, camera.height)
    if not is_compiled("refersplat", means):
        return Projected(*reference.project(*arguments))
    return Projected(*apply(_Project, *arguments))


def spherical_harmonics(
    means: Tensor,  # [N, 3]
    sh: Tensor,  # [N, K, 3]
    camera_position: Tensor,  # [3]
    degree: int,
) -> Tensor:  # [N, 3]
    """Colours of Gaussians seen from ``camera_position``: harmonics + 0.5, clamped at 0.

    Differentiable in ``sh`` and, through the direction, in ``means`` and ``camera_position``.

    Args:
        means: Centres in the world frame.
        sh: Coefficients per colour channel; K is at least ``(degree + 1) ** 2``.
        camera_position: The camera's centre in the world frame.
        degree: 0 to 3; coefficients above it do not count.

    Raises:
        ValueError: If a shape, dtype or device does not fit the others, or the degree.
    """
    check_shape("means", means, (None, 3))
    check_real("means", means)
    check_shape("sh", sh, (len(means), None, 3))
    check_shape("camera_position", camera_position, (3,))
    check_same("sh", sh, "means", means)
    if not 0 <= degree <= 3:
        raise ValueError(f"degree must lie between 0 and 3, got {degree}")
    if sh.shape[1] < (degree + 1) ** 2:
        raise ValueError(
            f"sh must have at least {(degree + 1) ** 2} coefficients for degree {degree},"
            f" got {sh.shape[1]}"
        )
    arguments = (means, sh, camera_position.to(means), degree)
    if not is_compiled("refersplat", means):
        return reference.spherical_harmonics(*arguments)
    return apply(_Shade, *arguments)


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        outputs = _project(*inputs)
        ctx.save_for_backward(*inputs[:4])
        ctx.lens_and_size = inputs[4:]
        ctx.mark_non_differentiable(outputs[3])
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        has_view = ctx.needs_input_grad[3]
        *others, view = _project_backward(
            *ctx.saved_tensors, *ctx.lens_and_size, *grads[:3], has_view
        )
        return *others, F.pad(view, (0, 0, 0, 1)) if has_view else None, None, None, None


@operator("refersplat::project")
def _project(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    view: Tensor,
    lens: typing.Sequence[float],  # the only name that PyTorch 2.6 reads for it
    width: int,
    height: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    count = means.shape[0]
    radii = means.new_empty(count, dtype=torch.int32)
    return means.new_empty(count, 2), means.new_empty(count, 3), means.new_empty(count), radii


@_project.cpu
def _(native: Any, *inputs: Any) -> tuple[Tensor, ...]:
    lens = np.array([*inputs[4], *inputs[5:]], dtype=np.float64)
    return fill(native.project, (*inputs[:4], lens), _project.empty(*inputs))


@_project.cuda
def _(gpu: Kernels, *inputs: Any) -> tuple[Tensor, ...]:
    *tensors, lens, width, height = inputs
    outputs = _project.empty(*inputs)
    numbers = (*lens, float(width), float(height), len(tensors[0]))
    _launch(gpu, "project_all", *tensors, *numbers, *outputs)
    return outputs


def _launch(gpu: Kernels, kernel: str, means: Tensor, *arguments: Any, **defines: int) -> None:
    if len(means):
        given = (t.contiguous() if isinstance(t, Tensor) else t for t in (means, *arguments))
        blocks, real = blocks_for(len(means), THREADS), REALS[means.dtype]
        gpu.launch("project", kernel, blocks, THREADS, *given, REAL=real, **defines)


@operator("refersplat::project_backward")
def _project_backward(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    view: Tensor,
    lens: typing.Sequence[float],
    width: int,
    height: int,
    grad_means2d: Tensor,
    grad_conics: Tensor,
    grad_depths: Tensor,
    has_view: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of means, quats, scales and, with ``has_view``, the view's upper rows [3, 4]."""
    grads = (means.new_empty(means.shape), quats.new_empty(quats.shape))
    return *grads, scales.new_empty(scales.shape), view.new_zeros(3 if has_view else 0, 4)


@_project_backward.cpu
def _(native: Any, *inputs: Any) -> tuple[Tensor, ...]:
    lens = np.array([*inputs[4], *inputs[5:7]], dtype=np.float64)
    outputs = _project_backward.empty(*inputs)
    return fill(native.project_backward, (*inputs[:4], lens, *inputs[7:10]), outputs)


@_project_backward.cuda
def _(gpu: Kernels, *inputs: Any) -> tuple[Tensor, ...]:
    *tensors, lens, width, height = inputs[:7]
    *grads, has_view = inputs[7:]
    count = len(tensors[0])
    *outputs, view = _project_backward.empty(*inputs)
    views = view.new_empty(count, 3, 4) if has_view else None
    numbers = (*lens, float(width), float(height), count)
    _launch(gpu, "project_all_backward", *tensors, *numbers, *grads, *outputs, views)
    return *outputs, view if views is None else views.sum(dim=0)


class _Shade(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, means: Tensor, sh: Tensor, position: Tensor, degree: int) -> Tensor:
        colors = _shade(means, sh, position, degree)
        ctx.save_for_backward(means, sh, position, colors)
        ctx.degree = degree
        return colors

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        means, sh, position, colors = ctx.saved_tensors
        grad_means, grad_sh = _shade_backward(means, sh, position, ctx.degree, colors, grad)
        # Only the difference of mean and position counts.
        grad_position = -grad_means.sum(dim=0) if ctx.needs_input_grad[2] else None
        return grad_means, grad_sh, grad_position, None


@operator("refersplat::spherical_harmonics")
def _shade(means: Tensor, sh: Tensor, position: Tensor, degree: int) -> Tensor:
    return means.new_empty(means.shape[0], 3)


@_shade.cpu
def _(native: Any, *inputs: Any) -> Tensor:
    return fill(native.shade, inputs, _shade.empty(*inputs))


@_shade.cuda
def _(gpu: Kernels, *inputs: Any) -> Tensor:
    *tensors, degree = inputs
    colors = _shade.empty(*inputs)
    numbers = (tensors[1].shape[1], len(colors))
    _launch(gpu, "shade_all", *tensors, *numbers, colors, DEGREE=degree)
    return colors


@operator("refersplat::spherical_harmonics_backward")
def _shade_backward(
    means: Tensor, sh: Tensor, position: Tensor, degree: int, colors: Tensor, grad_colors: Tensor
) -> tuple[Tensor, Tensor]:
    return means.new_empty(means.shape), sh.new_empty(sh.shape)


@_shade_backward.cpu
def _(native: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
    return fill(native.shade_backward, inputs, _shade_backward.empty(*inputs))


@_shade_backward.cuda
def _(gpu: Kernels, *inputs: Any) -> tuple[Tensor, Tensor]:
    means, sh, position, degree, *grads = inputs
    outputs = _shade_backward.empty(*inputs)
    arguments = (means, sh, position, sh.shape[1], len(means), *grads, *outputs)
    _launch(gpu, "shade_all_backward", *arguments, DEGREE=degree)
    return outputs
