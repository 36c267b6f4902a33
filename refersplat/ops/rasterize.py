"""Alpha blending of projected Gaussians into an image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from refer3d.native import (
    as_array,
    check_real,
    check_same,
    check_shape,
    in_precision_of,
    is_compiled,
    load,
    num_threads,
    operator,
)
from refer3d.native.cuda import kernels
from refersplat.ops import cuda_rasterize, reference


def rasterize(
    means2d: Tensor,  # [N, 2]
    conics: Tensor,  # [N, 3]
    depths: Tensor,  # [N]
    opacities: Tensor,  # [N]
    values: Tensor,  # [N, C]
    height: int,
    width: int,
) -> tuple[Tensor, Tensor]:
    """Composites per-Gaussian values into an image, nearest Gaussian first (Kerbl et al. 2023).

    A contribution below 1/255 is skipped, whatever its distance from the centre; a pixel is
    finished before the Gaussian that would take its transmittance below 1e-4. Gaussians at equal
    depth come in the order of their rows. Differentiable in all tensors but ``depths``; the result
    does not depend on the number of threads.

    Args:
        means2d: Centres in pixels, x then y; pixel centres lie at integers.
        conics: Inverse 2D covariances (xx, xy, yy) in 1/pixel^2.
        depths: Distances along the camera's axis; at 0.2 and below a Gaussian is not seen.
        opacities: In 0..1.
        values: Any number of channels: colours, features, scores.
        height: Of the image, in pixels.
        width: Of the image, in pixels.

    Returns:
        image: [C, H, W], values weighted by visibility. No background is added.
        transmittance: [H, W], what is left behind the last Gaussian.

    Raises:
        ValueError: If a shape, dtype or device does not fit the others.
    """
    check_splats(means2d, conics, depths, opacities, height, width)
    values = in_precision_of(values, means2d)
    check_shape("values", values, (len(means2d), None))
    check_same("values", values, "means2d", means2d)
    op = _rasterize if is_compiled("refersplat", means2d) else reference.rasterize
    return op(means2d, conics, depths, opacities, values, height, width)


def check_splats(
    means2d: Tensor, conics: Tensor, depths: Tensor, opacities: Tensor, height: int, width: int
) -> None:
    """Checks what ``rasterize`` and ``blend_matrix`` share."""
    check_shape("means2d", means2d, (None, 2))
    check_real("means2d", means2d)
    count = len(means2d)
    for name, tensor, shape in [
        ("conics", conics, (count, 3)),
        ("depths", depths, (count,)),
        ("opacities", opacities, (count,)),
    ]:
        check_shape(name, tensor, shape)
        check_same(name, tensor, "means2d", means2d)
    if height < 1 or width < 1:
        raise ValueError(f"height and width must be at least 1, got {height} and {width}")


@operator("refersplat::rasterize")
def _rasterize(
    means2d: Tensor,
    conics: Tensor,
    depths: Tensor,
    opacities: Tensor,
    values: Tensor,
    height: int,
    width: int,
) -> tuple[Tensor, Tensor]:
    if gpu := kernels("refersplat", means2d):
        return cuda_rasterize.rasterize(
            gpu, means2d, conics, depths, opacities, values, height, width
        )
    image = means2d.new_empty(values.shape[1], height, width)
    transmittance = means2d.new_empty(height, width)
    load("refersplat").rasterize(
        *map(as_array, (means2d, conics, depths, opacities, values)),
        num_threads(),
        image.numpy(),
        transmittance.numpy(),
    )
    return image, transmittance


@_rasterize.register_fake
def _(
    means2d: Tensor,
    conics: Tensor,
    depths: Tensor,
    opacities: Tensor,
    values: Tensor,
    height: int,
    width: int,
) -> tuple[Tensor, Tensor]:
    return values.new_empty(values.shape[1], height, width), values.new_empty(height, width)


@operator("refersplat::rasterize_backward")
def _rasterize_backward(
    means2d: Tensor,
    conics: Tensor,
    depths: Tensor,
    opacities: Tensor,
    values: Tensor,
    image: Tensor,
    transmittance: Tensor,
    grad_image: Tensor,
    grad_transmittance: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if gpu := kernels("refersplat", means2d):
        splats = (means2d, conics, depths, opacities, values)
        results = (image, transmittance, grad_image, grad_transmittance)
        return cuda_rasterize.rasterize_backward(gpu, *splats, *results)
    inputs = (means2d, conics, opacities, values)
    grads = tuple(torch.empty_like(t, memory_format=torch.contiguous_format) for t in inputs)
    load("refersplat").rasterize_backward(
        *map(as_array, (means2d, conics, depths, opacities, values, image, transmittance)),
        *map(as_array, (grad_image, grad_transmittance)),
        num_threads(),
        *(grad.numpy() for grad in grads),
    )
    return grads


@_rasterize_backward.register_fake
def _(
    means2d: Tensor, conics: Tensor, depths: Tensor, opacities: Tensor, values: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return tuple(t.new_empty(t.shape) for t in (means2d, conics, opacities, values))


def _keep_for_backward(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:5], *output)


def _gradients(ctx: Any, grad_image: Tensor, grad_transmittance: Tensor) -> tuple:
    means2d, conics, opacities, values = _rasterize_backward(
        *ctx.saved_tensors, grad_image, grad_transmittance
    )
    return means2d, conics, None, opacities, values, None, None


_rasterize.register_autograd(_gradients, setup_context=_keep_for_backward)
