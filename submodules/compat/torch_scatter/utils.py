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


def distinct(index: Tensor) -> Tensor:
    """An expanded index with size 1 along the dimensions in which it repeats."""
    for dim in range(index.dim()):
        if index.size(dim) > 1 and index.stride(dim) == 0:
            index = index.narrow(dim, 0, 1)
    return index


def row_groups(index: Tensor, dim: int) -> Tensor:
    """The groups [N] of an index that is the same for all entries of a row, else nothing [0]."""
    rows = distinct(index.movedim(dim, 0))
    if rows.numel() != rows.size(0):
        return rows.new_empty([0])
    return rows.flatten().expand(index.size(dim))


def spread(groups: Tensor, index: Tensor, dim: int) -> Tensor:
    """Gives each entry of an expanded index its group's value."""
    rows = row_groups(index, dim)
    if rows.numel() > 0:  # several times faster than gather
        return groups.index_select(dim, rows)
    return groups.gather(dim, index)
