"""Points to voxels and back, under the names and in the layouts of PointGroup's extension."""

from __future__ import annotations

import torch
from torch import Tensor

from detailbase.ops import segment_reduce, voxelize
from refer3d.native import check_shape

MODES = {0: "unique", 1: "last", 2: "first", 3: "sum", 4: "mean"}
"""Reductions of a voxel's points."""


def voxelization_idx(
    coords: Tensor,  # [N, 4]
    batchsize: int,
    mode: int = 4,
) -> tuple[Tensor, Tensor, Tensor]:
    """Finds the distinct voxels of points.

    Args:
        coords: (batch, x, y, z), int64.
        batchsize: How many scenes there are.
        mode: What ``voxelization`` will do; 1 and 2 keep one point for each voxel.

    Returns:
        voxels: [M, 4] int64, sorted by batch, x, y, z.
        point_to_voxel: [N] int32.
        voxel_to_points: [M, 1 + K] int32: how many points a voxel has, then which, in their order,
            then zeros. K is the largest number of points.

    Raises:
        ValueError: If the shape, the mode or a batch index does not fit.
    """
    check_shape("coords", coords, (None, 4))
    _check_mode(mode)
    coords = coords.long()
    if len(coords) and not 0 <= int(coords[:, 0].min()) <= int(coords[:, 0].max()) < batchsize:
        raise ValueError(
            f"coords must have batch indices in 0..{batchsize - 1}, got "
            f"{int(coords[:, 0].min())}..{int(coords[:, 0].max())}"
        )
    voxels, point_to_voxel = voxelize(coords[:, 1:].contiguous(), coords[:, 0].contiguous())
    order = torch.arange(len(voxels), device=voxels.device)
    for column in (3, 2, 1, 0):  # stable sorts from the last column to the first
        order = order[voxels[order, column].argsort(dim=0, stable=True)]
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    point_to_voxel = place[point_to_voxel]
    return voxels[order], point_to_voxel.int(), _voxel_to_points(point_to_voxel, len(order), mode)


def voxelization(
    feats: Tensor,  # [N, C]
    map_rule: Tensor,  # [M, 1 + K]
    mode: int = 4,
) -> Tensor:  # [M, C]
    """The features of voxels from their points', differentiable.

    Args:
        feats: One row for each point.
        map_rule: ``voxel_to_points`` of ``voxelization_idx``.
        mode: 3 for the sum of a voxel's points, 4 for their mean, else the kept point's.

    Raises:
        ValueError: If a shape or the mode does not fit.
    """
    check_shape("feats", feats, (None, None))
    check_shape("map_rule", map_rule, (None, None))
    _check_mode(mode)
    voxels, points = _pairs(map_rule)
    rows = feats.index_select(0, points)
    return segment_reduce(rows, voxels, len(map_rule), "mean" if mode == 4 else "sum")


def point_recover(
    feats: Tensor,  # [M, C]
    map_rule: Tensor,  # [M, 1 + K]
    nPoint: int,
) -> Tensor:  # [N, C]
    """The features of points from their voxels', differentiable; 0 without a voxel.

    Args:
        feats: One row for each voxel.
        map_rule: ``voxel_to_points`` of ``voxelization_idx``.
        nPoint: N.

    Raises:
        ValueError: If a shape does not fit.
    """
    check_shape("map_rule", map_rule, (None, None))
    check_shape("feats", feats, (len(map_rule), None))
    voxels, points = _pairs(map_rule)
    rows = feats.index_select(0, voxels)
    return feats.new_zeros(nPoint, feats.shape[1]).index_add(0, points, rows)


def _pairs(map_rule: Tensor) -> tuple[Tensor, Tensor]:
    """Voxels and points that belong together, from ``voxel_to_points``."""
    sizes, points = map_rule[:, 0].long(), map_rule[:, 1:].long()
    is_point = torch.arange(points.shape[1], device=points.device) < sizes[:, None]  # [M, K]
    voxels = torch.arange(len(points), device=points.device).repeat_interleave(sizes)
    return voxels, points[is_point]


def _check_mode(mode: int) -> None:
    if mode not in MODES:
        known = ", ".join(f"{number} ({name})" for number, name in MODES.items())
        raise ValueError(f"mode must be one of {known}, got {mode}")


def _voxel_to_points(point_to_voxel: Tensor, count: int, mode: int) -> Tensor:
    """Each voxel's number of points and the points, one row each."""
    points = point_to_voxel.argsort(dim=0, stable=True)
    voxels = point_to_voxel[points]
    sizes = torch.bincount(voxels, minlength=count)
    first = sizes.cumsum(dim=0) - sizes
    if mode in (1, 2):
        kept = points[first + sizes - 1] if mode == 1 else points[first]
        return torch.stack([torch.ones_like(kept), kept], dim=1).int()
    largest = int(sizes.max()) if count else 0
    table = points.new_zeros(count, 1 + largest)
    table[:, 0] = sizes
    table[voxels, 1 + torch.arange(len(points), device=points.device) - first[voxels]] = points
    return table.int()


class Voxelization_Idx:
    """``voxelization_idx`` for callers that know it as an autograd function."""

    apply = staticmethod(voxelization_idx)


class Voxelization:
    """``voxelization`` for callers that know it as an autograd function."""

    apply = staticmethod(voxelization)
