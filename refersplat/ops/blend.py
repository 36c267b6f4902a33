"""Rendering of a view whose geometry is frozen: a sparse matrix, made once.

Projection, order and weights of a view's Gaussians do not change when only their values do. What
is left of rendering is the product of a matrix (pixels x Gaussians) with the values, and of its
transpose with the image's gradient.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from refer3d.native import (
    as_array,
    check_same,
    check_shape,
    cpu_ops,
    in_precision_of,
    num_threads,
    operator,
)
from refer3d.native.cuda import kernels
from refersplat.ops import cuda_blend, reference
from refersplat.ops.rasterize import check_splats


@dataclass(frozen=True)
class BlendMatrix:
    """The weights with which one view blends its Gaussians.

    Stored tile by tile (16 x 16 pixels, row by row): one group for each Gaussian that contributes
    to the tile; of each group, the rows of pixels that it reaches; of each row, which of its 16
    pixels. Less than five bytes a weight in float32, where a CSR matrix takes eight, and a row is
    one vector of the products' arithmetic.
    """

    height: int
    width: int
    count: int
    """How many Gaussians the view was made of, N."""
    tile_groups: Tensor
    """[tiles + 1] int64, each tile's first group."""
    tile_weights: Tensor
    """[tiles + 1] int64, each tile's first weight."""
    gaussians: Tensor
    """[groups] int32, the group's Gaussian."""
    group_rows: Tensor
    """[groups + 1] int32, each group's first row."""
    rows: Tensor
    """[rows] int32: bit x (0 to 15) where the Gaussian contributes to the row's pixel x; from bit
    16 on, the row's place y in its tile."""
    weights: Tensor
    """[weights], the Gaussian's share of each of these pixels."""
    transmittance: Tensor
    """[H, W], what is left behind the last Gaussian."""

    def blend(self, values: Tensor) -> Tensor:  # [N, C] -> [C, H, W]
        """Renders per-Gaussian values of any width; differentiable in them.

        Raises:
            ValueError: If the values' shape, dtype or device does not fit.
        """
        values = in_precision_of(values, self.weights)
        check_shape("values", values, (self.count, None))
        check_same("values", values, "weights", self.weights)
        return _product(
            values,
            self.tile_groups,
            self.tile_weights,
            self.gaussians,
            self.group_rows,
            self.rows,
            self.weights,
            self.height,
            self.width,
        )

    def collect(self, image: Tensor) -> Tensor:  # [C, H, W] -> [N, C]
        """Sums over each Gaussian's pixels, weighted by its share: the transpose of ``blend``.

        Differentiable in the image.

        Raises:
            ValueError: If the image's shape, dtype or device does not fit.
        """
        image = in_precision_of(image, self.weights)
        check_shape("image", image, (None, self.height, self.width))
        check_same("image", image, "weights", self.weights)
        return _transposed_product(
            image,
            self.tile_groups,
            self.tile_weights,
            self.gaussians,
            self.group_rows,
            self.rows,
            self.weights,
            self.count,
        )

    @functools.cached_property
    def seen(self) -> tuple[Tensor, Tensor]:  # [K], [N - K]
        """The Gaussians that the view shows anything of, and all others, each in their order."""
        is_seen = torch.zeros(self.count, dtype=torch.bool, device=self.weights.device)
        is_seen[self.gaussians.long()] = True
        return is_seen.nonzero()[:, 0], (~is_seen).nonzero()[:, 0]

    @property
    def entries(self) -> int:
        """How many weights are stored."""
        return len(self.weights)

    @property
    def nbytes(self) -> int:
        """Memory that the matrix takes, with what ``seen`` adds to it."""
        own = sum(t.nbytes for t in vars(self).values() if isinstance(t, Tensor))
        return own + torch.int64.itemsize * self.count


@torch.no_grad()
def blend_matrix(
    means2d: Tensor,  # [N, 2]
    conics: Tensor,  # [N, 3]
    depths: Tensor,  # [N]
    opacities: Tensor,  # [N]
    height: int,
    width: int,
) -> BlendMatrix:
    """The matrix that renders any values as ``rasterize`` would with the same arguments.

    Raises:
        ValueError: If a shape, dtype or device does not fit the others.
    """
    check_splats(means2d, conics, depths, opacities, height, width)
    splats = (means2d, conics, depths, opacities)
    gpu = kernels("refersplat", means2d)
    native = cpu_ops("refersplat", means2d)
    if gpu:
        parts = cuda_blend.blend_matrix(gpu, *splats, height, width)
    elif native is None:
        parts = reference.blend_matrix(*splats, height, width)
    else:
        transmittance = means2d.new_empty(height, width)
        arrays = native.blend_weights(
            *map(as_array, splats),
            num_threads(),
            transmittance.numpy(),
        )
        parts = (*map(torch.from_numpy, arrays), transmittance)
    return BlendMatrix(height, width, len(means2d), *parts)


@operator("refersplat::blend")
def _product(
    values: Tensor,
    tile_groups: Tensor,
    tile_weights: Tensor,
    gaussians: Tensor,
    group_rows: Tensor,
    rows: Tensor,
    weights: Tensor,
    height: int,
    width: int,
) -> Tensor:
    arrays = (tile_groups, tile_weights, gaussians, group_rows, rows, weights)
    if gpu := kernels("refersplat", values):
        return cuda_blend.product(gpu, values, arrays, height, width)
    native = cpu_ops("refersplat", values)
    if native is None:
        pixel, gaussian = reference.blend_pairs(*arrays[:5], width)
        image = values.new_zeros(height * width, values.shape[1])
        image.index_add_(0, pixel, weights[:, None] * values[gaussian])
        return image.T.reshape(-1, height, width).contiguous()
    image = values.new_empty(values.shape[1], height, width)
    native.blend_product(*map(as_array, (*arrays, values)), num_threads(), image.numpy())
    return image


@_product.register_fake
def _(values: Tensor, *rest: Any) -> Tensor:
    return values.new_empty(values.shape[1], *rest[-2:])


@operator("refersplat::blend_backward")
def _transposed_product(
    grad: Tensor,
    tile_groups: Tensor,
    tile_weights: Tensor,
    gaussians: Tensor,
    group_rows: Tensor,
    rows: Tensor,
    weights: Tensor,
    count: int,
) -> Tensor:
    arrays = (tile_groups, tile_weights, gaussians, group_rows, rows, weights)
    if gpu := kernels("refersplat", grad):
        return cuda_blend.transposed_product(gpu, grad, arrays, count)
    channels, _, width = grad.shape
    native = cpu_ops("refersplat", grad)
    if native is None:
        pixel, gaussian = reference.blend_pairs(*arrays[:5], width)
        values = grad.new_zeros(count, channels)
        return values.index_add_(0, gaussian, weights[:, None] * grad.flatten(1).T[pixel])
    values = grad.new_empty(count, channels)
    native.blend_transposed_product(*map(as_array, (*arrays, grad)), num_threads(), values.numpy())
    return values


@_transposed_product.register_fake
def _(grad: Tensor, *rest: Any) -> Tensor:
    return grad.new_empty(rest[-1], grad.shape[0])


def _keep_for_backward(ctx: Any, inputs: tuple, output: Tensor) -> None:
    values, *arrays, _, _ = inputs
    ctx.count = values.shape[0]
    ctx.save_for_backward(*arrays)


def _gradients(ctx: Any, grad: Tensor) -> tuple:
    return _transposed_product(grad, *ctx.saved_tensors, ctx.count), *[None] * 8


_product.register_autograd(_gradients, setup_context=_keep_for_backward)


def _keep_for_product(ctx: Any, inputs: tuple, output: Tensor) -> None:
    image, *arrays, _ = inputs
    ctx.size = image.shape[1:]
    ctx.save_for_backward(*arrays)


def _transposed_gradients(ctx: Any, grad: Tensor) -> tuple:
    return _product(grad, *ctx.saved_tensors, *ctx.size), *[None] * 7


_transposed_product.register_autograd(_transposed_gradients, setup_context=_keep_for_product)
