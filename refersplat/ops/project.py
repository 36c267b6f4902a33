"""Projection of Gaussians onto the image, and their colours seen from a camera."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from refer3d.native import (
    as_array,
    check_constant,
    check_real,
    check_same,
    check_shape,
    is_compiled,
    load,
    num_threads,
    operator,
)
from refer3d.native.cuda import kernels
from refersplat.cameras import Camera
from refersplat.ops import cuda_project, reference


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
    Densification goes by them; what is drawn ends where it adds less than 1/255. No gradient."""


def project(
    means: Tensor,  # [N, 3]
    quats: Tensor,  # [N, 4]
    scales: Tensor,  # [N, 3]
    camera: Camera,
) -> Projected:
    """Projects Gaussians (EWA splatting, Zwicker et al. 2001, as in Kerbl et al. 2023).

    Differentiable in the three tensors. The radius of what lies behind the near plane (depth 0.2)
    or off the image is 0.

    Args:
        means: Centres in the world frame.
        quats: Rotations (w, x, y, z) of any length but zero.
        scales: Standard deviations along the Gaussian's axes, in the scene's unit.
        camera: From where; it gets no gradients.

    Raises:
        ValueError: If a shape, dtype or device does not fit the others, or the camera is to be
            learned.
    """
    check_shape("means", means, (None, 3))
    check_real("means", means)
    check_shape("quats", quats, (len(means), 4))
    check_shape("scales", scales, (len(means), 3))
    check_same("quats", quats, "means", means)
    check_same("scales", scales, "means", means)
    check_shape("camera.world_to_camera", camera.world_to_camera, (4, 4))
    check_constant("camera.world_to_camera", camera.world_to_camera)
    lens = [camera.fx, camera.fy, camera.cx, camera.cy]
    view = camera.world_to_camera.to(means)
    if not is_compiled("refersplat", means):
        sizes = (*lens, camera.width, camera.height)
        return Projected(*reference.project(means, quats, scales, view, *sizes))
    return Projected(*_project(means, quats, scales, view, lens, camera.width, camera.height))


def spherical_harmonics(
    means: Tensor,  # [N, 3]
    sh: Tensor,  # [N, K, 3]
    camera_position: Tensor,  # [3]
    degree: int,
) -> Tensor:  # [N, 3]
    """Colours of Gaussians seen from ``camera_position``: harmonics + 0.5, clamped at 0.

    Differentiable in ``means`` (through the direction) and ``sh``.

    Args:
        means: Centres in the world frame.
        sh: Coefficients per colour channel; K is at least ``(degree + 1) ** 2``.
        camera_position: The camera's centre in the world frame; it gets no gradients.
        degree: 0 to 3; coefficients above it do not count.

    Raises:
        ValueError: If a shape, dtype or device does not fit the others, or the degree, or the
            camera is to be learned.
    """
    check_shape("means", means, (None, 3))
    check_real("means", means)
    check_shape("sh", sh, (len(means), None, 3))
    check_shape("camera_position", camera_position, (3,))
    check_constant("camera_position", camera_position)
    check_same("sh", sh, "means", means)
    if not 0 <= degree <= 3:
        raise ValueError(f"degree must lie between 0 and 3, got {degree}")
    if sh.shape[1] < (degree + 1) ** 2:
        raise ValueError(
            f"sh must have at least {(degree + 1) ** 2} coefficients for degree {degree},"
            f" got {sh.shape[1]}"
        )
    op = _shade if is_compiled("refersplat", means) else reference.spherical_harmonics
    return op(means, sh, camera_position.to(means), degree)


@operator("refersplat::project")
def _project(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    view: Tensor,
    lens: list[float],
    width: int,
    height: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if gpu := kernels("refersplat", means):
        return cuda_project.project(gpu, means, quats, scales, view, lens, width, height)
    count = len(means)
    outputs = (means.new_empty(count, 2), means.new_empty(count, 3), means.new_empty(count))
    radii = torch.empty(count, dtype=torch.int32)
    load("refersplat").project(
        *map(as_array, (means, quats, scales, view)),
        np.array([*lens, width, height], dtype=np.float64),
        num_threads(),
        *(output.numpy() for output in outputs),
        radii.numpy(),
    )
    return *outputs, radii


@_project.register_fake
def _(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    view: Tensor,
    lens: list[float],
    width: int,
    height: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    count = means.shape[0]
    radii = means.new_empty(count, dtype=torch.int32)
    return means.new_empty(count, 2), means.new_empty(count, 3), means.new_empty(count), radii


@operator("refersplat::project_backward")
def _project_backward(
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
) -> tuple[Tensor, Tensor, Tensor]:
    grads = (grad_means2d, grad_conics, grad_depths)
    if gpu := kernels("refersplat", means):
        return cuda_project.project_backward(
            gpu, means, quats, scales, view, lens, width, height, *grads
        )
    outputs = tuple(
        torch.empty_like(t, memory_format=torch.contiguous_format) for t in (means, quats, scales)
    )
    load("refersplat").project_backward(
        *map(as_array, (means, quats, scales, view)),
        np.array([*lens, width, height], dtype=np.float64),
        *map(as_array, grads),
        num_threads(),
        *(output.numpy() for output in outputs),
    )
    return outputs


@_project_backward.register_fake
def _(means: Tensor, quats: Tensor, scales: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(t.new_empty(t.shape) for t in (means, quats, scales))  # without gaps


def _keep_projection(ctx: Any, inputs: tuple, output: tuple) -> None:
    means, quats, scales, view, *ctx.rest = inputs
    ctx.save_for_backward(means, quats, scales, view)
    ctx.mark_non_differentiable(output[3])


def _project_gradients(ctx: Any, *grads: Tensor) -> tuple:
    saved = ctx.saved_tensors
    return (*_project_backward(*saved, *ctx.rest, *grads[:3]), None, None, None, None)


_project.register_autograd(_project_gradients, setup_context=_keep_projection)


@operator("refersplat::spherical_harmonics")
def _shade(means: Tensor, sh: Tensor, position: Tensor, degree: int) -> Tensor:
    if gpu := kernels("refersplat", means):
        return cuda_project.shade(gpu, means, sh, position, degree)
    colors = means.new_empty(len(means), 3)
    load("refersplat").shade(
        *map(as_array, (means, sh, position)), degree, num_threads(), colors.numpy()
    )
    return colors


@_shade.register_fake
def _(means: Tensor, sh: Tensor, position: Tensor, degree: int) -> Tensor:
    return means.new_empty(means.shape[0], 3)


@operator("refersplat::spherical_harmonics_backward")
def _shade_backward(
    means: Tensor, sh: Tensor, position: Tensor, degree: int, colors: Tensor, grad_colors: Tensor
) -> tuple[Tensor, Tensor]:
    if gpu := kernels("refersplat", means):
        return cuda_project.shade_backward(gpu, means, sh, position, degree, colors, grad_colors)
    grad_means = torch.empty_like(means, memory_format=torch.contiguous_format)
    grad_sh = torch.empty_like(sh, memory_format=torch.contiguous_format)
    load("refersplat").shade_backward(
        *map(as_array, (means, sh, position)),
        degree,
        *map(as_array, (colors, grad_colors)),
        num_threads(),
        grad_means.numpy(),
        grad_sh.numpy(),
    )
    return grad_means, grad_sh


@_shade_backward.register_fake
def _(means: Tensor, sh: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return means.new_empty(means.shape), sh.new_empty(sh.shape)


def _keep_shading(ctx: Any, inputs: tuple, output: Tensor) -> None:
    means, sh, position, ctx.degree = inputs
    ctx.save_for_backward(means, sh, position, output)


def _shade_gradients(ctx: Any, grad: Tensor) -> tuple:
    means, sh, position, colors = ctx.saved_tensors
    return *_shade_backward(means, sh, position, ctx.degree, colors, grad), None, None


_shade.register_autograd(_shade_gradients, setup_context=_keep_shading)
