"""Alpha blending of projected Gaussians into an image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from refer3d.native import (
    apply,
    as_array,
    check_real,
    check_same,
    check_shape,
    fill,
    in_precision_of,
    is_compiled,
    num_threads,
    operator,
)
from refersplat.ops import cuda_rasterize, reference

LARGEST_SIDE = 2**16
"""Of an image in pixels; the numbers of its tiles have 32 bits."""


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
        transmittance: [H, W], the share of light that passes all Gaussians.

    Raises:
        ValueError: If a shape, dtype or device does not fit the others.
    """
    check_splats(means2d, conics, depths, opacities, height, width)
    values = in_precision_of(values, means2d)
    check_shape("values", values, (len(means2d), None))
    check_same("values", values, "means2d", means2d)
    if not is_compiled("refersplat", means2d):
        return reference.rasterize(means2d, conics, depths, opacities, values, height, width)
    # A compiled graph takes no tensors whose size depends on data: its backward pass sorts again.
    keeps_lists = not torch.compiler.is_compiling()
    splats = (means2d, conics, depths, opacities)
    return apply(_Rasterize, *splats, values, height, width, keeps_lists)


def check_splats(
    means2d: Tensor, conics: Tensor, depths: Tensor, opacities: Tensor, height: int, width: int
) -> None:
    """Checks the arguments that ``rasterize`` and ``blend_matrix`` share."""
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
    if not (1 <= height <= LARGEST_SIDE and 1 <= width <= LARGEST_SIDE):
        raise ValueError(
            f"height and width must be at least 1 and at most {LARGEST_SIDE}, got {height} and "
            f"{width}"
        )


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        results = _rasterize(*inputs)
        ctx.save_for_backward(*inputs[:5], *results)
        return results[0], results[1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        means2d, conics, opacities, values = _rasterize_backward(*ctx.saved_tensors, *grads)
        return means2d, conics, None, opacities, values, None, None, None


@operator("refersplat::rasterize")
def _rasterize(
    means2d: Tensor,
    conics: Tensor,
    depths: Tensor,
    opacities: Tensor,
    values: Tensor,
    height: int,
    width: int,
    keeps_lists: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Image, transmittance and tile lists.

    The lists, whose layout is the device's own, spare the backward pass the sorting; without
    ``keeps_lists`` they are empty.
    """
    sizes = [torch.library.get_ctx().new_dynamic_size() if keeps_lists else 0 for _ in range(3)]
    return (
        values.new_empty(values.shape[1], height, width),
        values.new_empty(height, width),
        values.new_empty(sizes[0]),
        values.new_empty(sizes[1], dtype=torch.int32),
        values.new_empty(sizes[2], dtype=torch.int64),
    )


@_rasterize.cpu
def _(native: Any, *inputs: Any) -> tuple[Tensor, ...]:
    *splats, values, height, width, keeps_lists = inputs
    lists = _tile_lists(native, *splats, height, width)
    outputs = (values.new_empty(values.shape[1], height, width), values.new_empty(height, width))
    fill(native.rasterize, (*lists, values), outputs)
    return *outputs, *(lists if keeps_lists else (part.new_empty(0) for part in lists))


_rasterize.cuda(cuda_rasterize.rasterize)


def _tile_lists(native: Any, *splats: Any) -> tuple[Tensor, ...]:
    """Candidates, entries and starts: see ``tiles.h``."""
    arrays = (as_array(given) if isinstance(given, Tensor) else given for given in splats)
    return tuple(map(torch.from_numpy, native.tile_lists(*arrays, num_threads())))


@operator("refersplat::rasterize_backward")
def _rasterize_backward(
    means2d: Tensor,
    conics: Tensor,
    depths: Tensor,
    opacities: Tensor,
    values: Tensor,
    image: Tensor,
    transmittance: Tensor,
    records: Tensor,
    entries: Tensor,
    starts: Tensor,
    grad_image: Tensor,
    grad_transmittance: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of means2d, conics, opacities and values."""
    count = means2d.shape[0]
    geometry = (means2d.new_empty(count, 2), means2d.new_empty(count, 3), means2d.new_empty(count))
    return *geometry, values.new_empty(values.shape)


@_rasterize_backward.cpu
def _(native: Any, *inputs: Tensor) -> tuple[Tensor, ...]:
    lists = inputs[7:10]
    if not len(lists[-1]):
        lists = _tile_lists(native, *inputs[:4], *inputs[6].shape)
    outputs = _rasterize_backward.empty(*inputs)
    return fill(native.rasterize_backward, (*lists, *inputs[4:7], *inputs[10:]), outputs)


_rasterize_backward.cuda(cuda_rasterize.rasterize_backward)
