"""``softgroup.ops``, as SoftGroup's model imports it, on CPUs too.

The folder above is shared with SoftGroup's own code: without its folder ``softgroup/ops``, which
compiles for CUDA, its model finds this one.
"""

from softgroup.ops.functions import (
    ball_query,
    ballquery_batch_p,
    bfs_cluster,
    get_mask_iou_on_cluster,
    get_mask_iou_on_pred,
    get_mask_label,
    global_avg_pool,
    sec_max,
    sec_mean,
    sec_min,
    voxelization,
    voxelization_idx,
)

__all__ = [
    "ball_query",
    "ballquery_batch_p",
    "bfs_cluster",
    "get_mask_iou_on_cluster",
    "get_mask_iou_on_pred",
    "get_mask_label",
    "global_avg_pool",
    "sec_max",
    "sec_mean",
    "sec_min",
    "voxelization",
    "voxelization_idx",
]
