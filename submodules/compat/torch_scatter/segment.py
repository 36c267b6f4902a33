"""Reductions of groups that follow each other: by boundaries (csr) or a sorted index (coo).

The groups lie along the last dimension of ``indptr`` or ``index``; the dimensions before it are the
first ones of ``src``, or 1.
"""

import torch
from torch import Tensor

from torch_scatter.scatter import (
    scatter_max,
    scatter_mean,
    scatter_min,
    scatter_sum,
)
from torch_scatter.utils import broadcast_to, spread


def segment_csr(
    src: Tensor,
    indptr: Tensor,
    out: Tensor | None = None,
    reduce: str = "sum",
) -> Tensor:
    """Reduces the entries indptr[i] to indptr[i + 1] - 1 of each group i.

    Args:
        src: Integers or floats.
        indptr: int64 or int32, never falling. Entries before the first and from the last on are
            in no group.
        out: Takes the result; what it holds is overwritten.
        reduce: As of :func:`torch_scatter.scatter`, without ``"mul"``.
    """
    if reduce == "sum" or reduce == "add":
        return segment_sum_csr(src, indptr, out)
    if reduce == "mean":
        return segment_mean_csr(src, indptr, out)
    if reduce == "min":
        return segment_min_csr(src, indptr, out)[0]
    if reduce == "max":
        return segment_max_csr(src, indptr, out)[0]
    raise ValueError(f"reduce must be sum, add, mean, min or max, got {reduce}")


def segment_sum_csr(
    src: Tensor,
    indptr: Tensor,
    out: Tensor | None = None,
) -> Tensor:
    """The sum of each group; see :func:`segment_csr`."""
    dim, count = indptr.dim() - 1, _count(indptr)
    total = scatter_sum(src, _groups(src, indptr), dim, None, count + 2)
    return _inner(total, dim, count, out)


def segment_add_csr(
    src: Tensor,
    indptr: Tensor,
    out: Tensor | None = None,
) -> Tensor:
    """The sum of each group; see :func:`segment_csr`."""
    return segment_sum_csr(src, indptr, out)


def segment_mean_csr(
    src: Tensor,
    indptr: Tensor,
    out: Tensor | None = None,
) -> Tensor:
    """The mean of each group; see :func:`segment_csr`."""
    dim, count = indptr.dim() - 1, _count(indptr)
    mean = scatter_mean(src, _groups(src, indptr), dim, None, count + 2)
    return _inner(mean, dim, count, out)


def segment_min_csr(
    src: Tensor,
    indptr: Tensor,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The smallest entry of each group, and its place, as :func:`torch_scatter.scatter_min`."""
    dim, count = indptr.dim() - 1, _count(indptr)
    values, places = scatter_min(src, _groups(src, indptr), dim, None, count + 2)
    return _inner(values, dim, count, out), _inner(places, dim, count, None)


def segment_max_csr(
    src: Tensor,
    indptr: Tensor,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The largest entry of each group, and its place, as :func:`torch_scatter.scatter_max`."""
    dim, count = indptr.dim() - 1, _count(indptr)
    values, places = scatter_max(src, _groups(src, indptr), dim, None, count + 2)
    return _inner(values, dim, count, out), _inner(places, dim, count, None)


def gather_csr(
    src: Tensor,
    indptr: Tensor,
    out: Tensor | None = None,
) -> Tensor:
    """Gives each entry its group's value: the opposite of :func:`segment_csr`.

    Args:
        src: One value for each group.
        indptr: The groups' boundaries, from 0; all rows end alike.
        out: Takes the result.
    """
    dim = indptr.dim() - 1
    if src.size(dim) != _count(indptr):
        raise ValueError(
            f"src must have a value for each of the {_count(indptr)} groups of indptr along "
            f"dimension {dim}, got {src.size(dim)}"
        )
    if indptr.numel() > 0 and bool((indptr.select(dim, 0) != 0).any()):
        raise ValueError("indptr must begin with 0")
    shape = list(src.shape)
    shape[dim] = int(indptr.flatten()[-1]) if indptr.numel() > 0 else 0
    entries = torch.empty(shape, dtype=torch.bool, device=src.device)
    return gather_coo(src, _groups(entries, indptr) - 1, out)


def segment_coo(
    src: Tensor,
    index: Tensor,
    out: Tensor | None = None,
    dim_size: int | None = None,
    reduce: str = "sum",
) -> Tensor:
    """:func:`torch_scatter.scatter` along the last dimension of a sorted index, without ``"mul"``.

    The index need not be sorted here.
    """
    if reduce == "sum" or reduce == "add":
        return segment_sum_coo(src, index, out, dim_size)
    if reduce == "mean":
        return segment_mean_coo(src, index, out, dim_size)
    if reduce == "min":
        return segment_min_coo(src, index, out, dim_size)[0]
    if reduce == "max":
        return segment_max_coo(src, index, out, dim_size)[0]
    raise ValueError(f"reduce must be sum, add, mean, min or max, got {reduce}")


def segment_sum_coo(
    src: Tensor,
    index: Tensor,
    out: Tensor | None = None,
    dim_size: int | None = None,
) -> Tensor:
    """The sum of each group; see :func:`segment_coo`."""
    return scatter_sum(src, index, index.dim() - 1, out, dim_size)


def segment_add_coo(
    src: Tensor,
    index: Tensor,
    out: Tensor | None = None,
    dim_size: int | None = None,
) -> Tensor:
    """The sum of each group; see :func:`segment_coo`."""
    return segment_sum_coo(src, index, out, dim_size)


def segment_mean_coo(
    src: Tensor,
    index: Tensor,
    out: Tensor | None = None,
    dim_size: int | None = None,
) -> Tensor:
    """The mean of each group; see :func:`segment_coo`."""
    return scatter_mean(src, index, index.dim() - 1, out, dim_size)


def segment_min_coo(
    src: Tensor,
    index: Tensor,
    out: Tensor | None = None,
    dim_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The smallest entry of each group, and its place; see :func:`torch_scatter.scatter_min`."""
    return scatter_min(src, index, index.dim() - 1, out, dim_size)


def segment_max_coo(
    src: Tensor,
    index: Tensor,
    out: Tensor | None = None,
    dim_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The largest entry of each group, and its place; see :func:`torch_scatter.scatter_max`."""
    return scatter_max(src, index, index.dim() - 1, out, dim_size)


def gather_coo(
    src: Tensor,
    index: Tensor,
    out: Tensor | None = None,
) -> Tensor:
    """Gives each entry its group's value: the opposite of :func:`segment_coo`."""
    dim = index.dim() - 1
    shape = list(src.shape)
    shape[dim] = index.size(dim)
    entries = spread(src, broadcast_to(index, shape, dim), dim)
    return entries if out is None else out.copy_(entries)


def _count(indptr: Tensor) -> int:
    return max(indptr.size(-1) - 1, 0)


def _groups(src: Tensor, indptr: Tensor) -> Tensor:
    """Each entry's group, from 1: 0 are entries before the first group; the rest come last."""
    dim = indptr.dim() - 1
    places = torch.arange(src.size(dim), dtype=indptr.dtype, device=src.device)
    if dim > 0:
        shape = list(src.shape[: dim + 1])
        places = places.expand(shape)
        shape[dim] = indptr.size(dim)
        indptr = indptr.expand(shape)
    return torch.searchsorted(indptr.contiguous(), places.contiguous(), right=True)


def _inner(
    groups: Tensor,
    dim: int,
    count: int,
    out: Tensor | None,
) -> Tensor:
    """Without the groups of :func:`_groups` that are none."""
    groups = groups.narrow(dim, 1, count).contiguous()
    return groups if out is None else out.copy_(groups)
