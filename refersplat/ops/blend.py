"""Rendering of a view whose geometry is frozen: a sparse matrix, made once.

Projection, order and weights of a view's Gaussians do not change when only their values do.
Rendering is then the product of a matrix (pixels x Gaussians) with the values, and its gradient
that of the transpose with the image's gradient.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from refer3d.native import (
    apply,
    as_array,
    check_same,
    check_shape,
    fill,
    in_precision_of,
    num_threads,
    operator,
)
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
    """Number of Gaussians, N."""
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
    """[H, W], the share of light that passes all Gaussians."""

    def blend(self, values: Tensor) -> Tensor:  # [N, C] -> [C, H, W]
        """Renders per-Gaussian values of any width; differentiable in them.

        Raises:
            ValueError: If the values' shape, dtype or device does not fit.
        """
        values = in_precision_of(values, self.weights)
        check_shape("values", values, (self.count, None))
        check_same("values", values, "weights", self.weights)
        return apply(_Product, values, *self._arrays(), self.height, self.width)

    def collect(self, image: Tensor) -> Tensor:  # [C, H, W] -> [N, C]
        """Sums over each Gaussian's pixels, weighted by its share: the transpose of ``blend``.

        Differentiable in the image.

        Raises:
            ValueError: If the image's shape, dtype or device does not fit.
        """
        image = in_precision_of(image, self.weights)
        check_shape("image", image, (None, self.height, self.width))
        check_same("image", image, "weights", self.weights)
        return apply(_TransposedProduct, image, *self._arrays(), self.count)

    def _arrays(self) -> tuple[Tensor, ...]:
        index = (self.tile_groups, self.tile_weights, self.gaussians, self.group_rows, self.rows)
        return *index, self.weights

    @functools.cached_property
    def seen(self) -> tuple[Tensor, Tensor]:  # [K], [N - K]
        """The Gaussians that contribute to the view, and all others, each in their order."""
        is_seen = torch.zeros(self.count, dtype=torch.bool, device=self.weights.device)
        is_seen[self.gaussians.long()] = True
        return is_seen.nonzero()[:, 0], (~is_seen).nonzero()[:, 0]

    @property
    def entries(self) -> int:
        """Number of stored weights."""
        return len(self.weights)

    @property
    def nbytes(self) -> int:
        """Bytes of the matrix, with those of ``seen``."""
        stored = sum(t.nbytes for t in vars(self).values() if isinstance(t, Tensor))
        return stored + torch.int64.itemsize * self.count


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
    parts = _blend_matrix(means2d, conics, depths, opacities, height, width)
    return BlendMatrix(height, width, len(means2d), *parts)


@operator("refersplat::blend_matrix", reference=reference.blend_matrix)
def _blend_matrix(
    means2d: Tensor,
    conics: Tensor,
    depths: Tensor,
    opacities: Tensor,
    height: int,
    width: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The tensors of a ``BlendMatrix``, in its order."""
    tiles = -(-height // reference.TILE) * -(-width // reference.TILE)
    groups, rows, weights = (torch.library.get_ctx().new_dynamic_size() for _ in range(3))
    return (
        means2d.new_empty(tiles + 1, dtype=torch.int64),
        means2d.new_empty(tiles + 1, dtype=torch.int64),
        means2d.new_empty(groups, dtype=torch.int32),
        means2d.new_empty(groups + 1, dtype=torch.int32),
        means2d.new_empty(rows, dtype=torch.int32),
        means2d.new_empty(weights),
        means2d.new_empty(height, width),
    )


@_blend_matrix.cpu
def _(native: Any, *inputs: Any) -> tuple[Tensor, ...]:
    *splats, height, width = inputs
    transmittance = splats[0].new_empty(height, width)
    arrays = native.blend_weights(*map(as_array, splats), num_threads(), transmittance.numpy())
    return *map(torch.from_numpy, arrays), transmittance


_blend_matrix.cuda(cuda_blend.blend_matrix)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, *rest: Any) -> Tensor:
        ctx.count = values.shape[0]
        ctx.save_for_backward(*rest[:6])
        return _product(values, *rest)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _TransposedProduct.apply(grad, *ctx.saved_tensors, ctx.count), *[None] * 8


class _TransposedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, *rest: Any) -> Tensor:
        ctx.size = image.shape[1:]
        ctx.save_for_backward(*rest[:6])
        return _transposed_product(image, *rest)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _Product.apply(grad, *ctx.saved_tensors, *ctx.size), *[None] * 7


@operator("refersplat::blend", reference=reference.blend_product)
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
    return values.new_empty(values.shape[1], height, width)


@_product.cpu
def _(native: Any, values: Tensor, *rest: Any) -> Tensor:
    return fill(native.blend_product, (*rest[:6], values), _product.empty(values, *rest))


_product.cuda(cuda_blend.product)


@operator("refersplat::blend_backward", reference=reference.blend_transposed_product)
def _transposed_product(
    image: Tensor,
    tile_groups: Tensor,
    tile_weights: Tensor,
    gaussians: Tensor,
    group_rows: Tensor,
    rows: Tensor,
    weights: Tensor,
    count: int,
) -> Tensor:
    return image.new_empty(count, image.shape[0])


@_transposed_product.cpu
def _(native: Any, image: Tensor, *rest: Any) -> Tensor:
    outputs = _transposed_product.empty(image, *rest)
    return fill(native.blend_transposed_product, (*rest[:6], image), outputs)


_transposed_product.cuda(cuda_blend.transposed_product)
