"""Points to voxels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from detailbase.ops import cuda_voxels, reference
from refer3d.native import as_array, check_same, check_shape, num_threads, operator


def voxelize(
    coords: Tensor,  # [N, 3]
    batch: Tensor,  # [N]
) -> tuple[Tensor, Tensor]:
    """Finds the distinct voxels that points lie in.

    The voxels come scene by scene in Morton's order, in which rows that are near in space are near
    in memory: everything that gathers neighbours is fastest so.

    Args:
        coords: Each point's voxel (x, y, z), int32 or int64; may be negative.
        batch: Each point's scene, of the same dtype.

    Returns:
        voxels: [M, 4], distinct (batch, x, y, z).
        point_to_voxel: [N] int64, rows of ``voxels``.

    Raises:
        ValueError: If a shape, dtype or device does not fit, or the coordinates of an axis span
            about 2^21 voxels or more.
    """
    check_shape("coords", coords, (None, 3))
    check_integers("coords", coords)
    check_shape("batch", batch, (len(coords),))
    check_same("batch", batch, "coords", coords)
    return _voxelize(coords, batch)


def check_integers(name: str, tensor: Tensor) -> None:
    """Checks that an argument is int32 or int64."""
    if tensor.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"{name} must be int32 or int64, got {str(tensor.dtype)[6:]}")


@operator("detailbase::voxelize", reference=reference.voxelize)
def _voxelize(coords: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
    num_voxels = torch.library.get_ctx().new_dynamic_size()
    return coords.new_empty(num_voxels, 4), coords.new_empty(coords.shape[0], dtype=torch.int64)


@_voxelize.cpu
def _(native: Any, coords: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
    point_to_voxel = torch.empty(len(coords), dtype=torch.int64)
    arrays = (as_array(coords), as_array(batch))
    voxels = native.voxelize(*arrays, num_threads(), point_to_voxel.numpy())
    return torch.from_numpy(voxels).view(-1, 4), point_to_voxel


_voxelize.cuda(cuda_voxels.voxelize)
