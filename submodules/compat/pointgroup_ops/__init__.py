"""``import pointgroup_ops``: PointGroup's ops as its family of code calls them, on CPUs too."""

from pointgroup_ops.functions import (
    Voxelization,
    Voxelization_Idx,
    point_recover,
    voxelization,
    voxelization_idx,
)
from pointgroup_ops.proposals import (
    ballquery_batch_p,
    bfs_cluster,
    get_iou,
    roipool,
    sec_max,
    sec_mean,
    sec_min,
)

__all__ = [
    "Voxelization",
    "Voxelization_Idx",
    "ballquery_batch_p",
    "bfs_cluster",
    "get_iou",
    "point_recover",
    "roipool",
    "sec_max",
    "sec_mean",
    "sec_min",
    "voxelization",
    "voxelization_idx",
]
