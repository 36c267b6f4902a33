"""Reductions of the entries that an index puts into one group."""

import torch
from torch import Tensor

import detailbase.ops  # noqa: F401  registers the operator segment_max
from torch_scatter.utils import broadcast, distinct, row_groups


def scatter(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
    reduce: str = "sum",
) -> Tensor:
    """Reduces the entries of each group along one dimension.

    Args:
        src: Integers or floats.
        index: int64, each entry's group, in a shape of :func:`torch_scatter.utils.broadcast`.
        dim: The dimension.
        out: Takes the result in place. What it holds is reduced with the entries; a mean divides
            the sum with it by the number of entries alone.
        dim_size: Number of groups; the default is the largest index plus 1.
        reduce: ``"sum"`` or ``"add"``, ``"mul"``, ``"mean"``, ``"min"``, ``"max"``. Integer means
            are rounded down. A group without entries has 0, its product 1.

    Returns:
        The shape of ``src``, with the groups along ``dim``. Differentiable in ``src``; the gradient
        of a minimum or maximum goes to the first entry that has it.

    Raises:
        ValueError: An argument does not fit.
    """
    if reduce == "sum" or reduce == "add":
        return scatter_sum(src, index, dim, out, dim_size)
    if reduce == "mul":
        return scatter_mul(src, index, dim, out, dim_size)
    if reduce == "mean":
        return scatter_mean(src, index, dim, out, dim_size)
    if reduce == "min":
        return scatter_min(src, index, dim, out, dim_size)[0]
    if reduce == "max":
        return scatter_max(src, index, dim, out, dim_size)[0]
    raise ValueError(f"reduce must be sum, add, mul, mean, min or max, got {reduce}")


def scatter_sum(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
) -> Tensor:
    """The sum of each group; see :func:`scatter`."""
    index = broadcast(index, src, dim)
    if out is None:
        out = _full(src, index, dim, dim_size, 0)
    _check(index, dim, out)
    return out.scatter_add_(dim, index, src)


def scatter_add(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
) -> Tensor:
    """The sum of each group; see :func:`scatter`."""
    return scatter_sum(src, index, dim, out, dim_size)


def scatter_mul(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
) -> Tensor:
    """The product of each group; see :func:`scatter`."""
    index = broadcast(index, src, dim)
    if out is None:
        out = _full(src, index, dim, dim_size, 1)
    _check(index, dim, out)
    return out.scatter_reduce_(dim, index, src, "prod", include_self=True)


def scatter_mean(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
) -> Tensor:
    """The mean of each group; see :func:`scatter`."""
    total = scatter_sum(src, index, dim, out, dim_size)
    counts = count_entries(src, index, dim, total)
    if total.is_floating_point():
        return total.div_(counts)
    return total.div_(counts, rounding_mode="floor")


def scatter_min(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The smallest entry of each group, and its place; see :func:`scatter_max`."""
    return _extremum(src, index, dim, out, dim_size, False)


def scatter_max(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The largest entry of each group, and its place along ``dim``; see :func:`scatter`.

    Returns:
        Values, and int64 places: the first of equal entries, as torch_scatter has it on a CPU, on
        every device. The size of ``src`` along ``dim`` where a group has no entries, or none beyond
        what ``out`` holds.
    """
    return _extremum(src, index, dim, out, dim_size, True)


def count_entries(src: Tensor, index: Tensor, dim: int, groups: Tensor) -> Tensor:
    """How many entries each group has, at least 1, in a shape that broadcasts to ``groups``."""
    index = distinct(broadcast(index, src, dim))
    shape = list(index.shape)
    shape[dim] = groups.size(dim)
    counts = torch.zeros(shape, dtype=torch.int64, device=src.device)
    # An index that repeats along dim counts as often as it does.
    ones = torch.full_like(index, src.size(dim) // max(index.size(dim), 1))
    return counts.scatter_add_(dim, index, ones).clamp_(min=1)


def _extremum(
    src: Tensor,
    index: Tensor,
    dim: int,
    out: Tensor | None,
    dim_size: int | None,
    is_largest: bool,
) -> tuple[Tensor, Tensor]:
    index = broadcast(index, src, dim)
    count = src.size(dim)
    groups = _full(src, index, dim, dim_size, 0) if out is None else out
    _check(index, dim, groups)
    if src.numel() == 0:
        places = torch.full_like(groups, count, dtype=torch.int64)
        return groups.scatter_add_(dim, index, src), places
    rows = row_groups(index, dim)
    if rows.numel() > 0 and src.is_floating_point():
        places = _places_by_rows(src.detach(), rows, dim, groups.size(dim), is_largest)
    else:
        places = _places(src.detach(), index, dim, groups, is_largest)
    values = src.gather(dim, places.clamp(max=count - 1))
    is_filled = places < count
    if out is None:
        return values.masked_fill(~is_filled, 0), places
    is_better = values > out if is_largest else values < out
    is_better = is_filled & (is_better | (values.isnan() & ~out.isnan()))
    out.copy_(torch.where(is_better, values, out))
    return out, places.masked_fill(~is_better, count)


def _places_by_rows(src: Tensor, index: Tensor, dim: int, count: int, is_largest: bool) -> Tensor:
    """First places of extrema where all of a row has one group: our op is faster than PyTorch."""
    rows = src.movedim(dim, 0)
    shape = [count] + list(rows.shape[1:])  # noqa: RUF005  TorchScript unpacks no lists
    rows = rows.flatten(1) if rows.dim() > 1 else rows[:, None]
    places = torch.ops.detailbase.segment_max(rows if is_largest else -rows, index, count)[1]
    places = places.masked_fill(places < 0, src.size(dim))
    return places.view(shape).movedim(0, dim)


def _places(src: Tensor, index: Tensor, dim: int, groups: Tensor, is_largest: bool) -> Tensor:
    """First places of extrema, where any entry has its own group."""
    shape, count = list(groups.shape), src.size(dim)
    reduce = "amax" if is_largest else "amin"
    best = torch.zeros(shape, dtype=src.dtype, device=src.device)
    best = best.scatter_reduce(dim, index, src, reduce, include_self=False).gather(dim, index)
    place = broadcast(torch.arange(count, device=src.device), src, dim)
    is_best = (src == best) | (src.isnan() & best.isnan())
    places = torch.full(shape, count, dtype=torch.int64, device=src.device)
    return places.scatter_reduce(dim, index, place.masked_fill(~is_best, count), "amin")


def _full(
    src: Tensor,
    index: Tensor,
    dim: int,
    dim_size: int | None,
    value: int,
) -> Tensor:
    shape = list(src.shape)
    if dim_size is not None:
        shape[dim] = dim_size
    else:
        shape[dim] = int(distinct(index).max()) + 1 if index.numel() > 0 else 0
    return torch.full(shape, value, dtype=src.dtype, device=src.device)


def _check(index: Tensor, dim: int, out: Tensor) -> None:
    """Checks groups on the CPU; on a GPU they are CUDA's error, which costs no wait."""
    if index.numel() == 0 or index.device.type != "cpu":
        return
    least, largest = torch.aminmax(distinct(index))
    if int(least) < 0 or int(largest) >= out.size(dim):
        raise ValueError(
            f"index must lie in 0..{out.size(dim) - 1} along dimension {dim}, got "
            f"{int(least)}..{int(largest)}; dim_size or out sets the number of groups"
        )
