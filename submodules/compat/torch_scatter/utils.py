"""Indices in the shape of what they index."""

import torch
from torch import Tensor


def broadcast(src: Tensor, other: Tensor, dim: int) -> Tensor:
    """Expands an index to the shape of ``other``.

    Args:
        src: The index. One dimension goes along ``dim``; several are the first ones of ``other``.
        other: Any tensor.
        dim: Negative ones count from the last.

    Raises:
        ValueError: The index is not int64, or its shape does not broadcast.
    """
    return broadcast_to(src, list(other.shape), dim)


def broadcast_to(index: Tensor, shape: list[int], dim: int) -> Tensor:
    """:func:`broadcast`, to a shape that no tensor has yet."""
    if index.dtype != torch.int64:
        raise ValueError(f"index must be int64, got {index.dtype}; convert it by .long()")
    if dim < -len(shape) or dim >= len(shape):
        raise ValueError(f"dim must lie in {-len(shape)}..{len(shape) - 1}, got {dim}")
    size = list(index.shape)
    if index.dim() == 1:
        size = [1] * (dim % len(shape)) + size
    size = size + [1] * (len(shape) - len(size))
    fits = len(size) == len(shape)
    if fits:
        for i in range(len(shape)):
            fits = fits and (size[i] == 1 or size[i] == shape[i])
    if not fits:
        raise ValueError(
            f"index must broadcast to {shape} along dimension {dim}, got shape {list(index.shape)}"
        )
    return index.reshape(size).expand(shape)
