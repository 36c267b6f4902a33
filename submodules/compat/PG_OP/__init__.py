"""PointGroup's compiled extension, whose functions write into tensors that the caller made.

``pointgroup_ops`` has the same ops as functions that return their results. Sizes among the
arguments are read from the tensors instead.
"""

from __future__ import annotations

from torch import Tensor

import pointgroup_ops as ops
from torch_scatter import segment_max_csr

__all__ = [
    "ballquery_batch_p",
    "bfs_cluster",
    "get_iou",
    "point_recover_bp",
    "point_recover_fp",
    "roipool_bp",
    "roipool_fp",
    "sec_max",
    "sec_mean",
    "sec_min",
    "voxelize_bp",
    "voxelize_fp",
    "voxelize_idx",
]


def voxelize_idx(
    coords: Tensor,
    output_coords: Tensor,
    input_map: Tensor,
    output_map: Tensor,
    batchsize: int,
    mode: int,
) -> None:
    """``voxelization_idx``; resizes the three results."""
    results = ops.voxelization_idx(coords, batchsize, mode)
    for out, result in zip((output_coords, input_map, output_map), results, strict=True):
        out.resize_(result.shape).copy_(result)


def voxelize_fp(
    feats: Tensor,
    output_feats: Tensor,
    output_map: Tensor,
    mode: int,
    nActive: int,
    maxActive: int,
    nPlane: int,
) -> None:
    """``voxelization``."""
    output_feats.copy_(ops.voxelization(feats.detach(), output_map, mode))


def voxelize_bp(
    d_output_feats: Tensor,
    d_feats: Tensor,
    output_map: Tensor,
    mode: int,
    nActive: int,
    maxActive: int,
    nPlane: int,
) -> None:
    """Its gradient by ``feats``."""
    if mode == 4:
        d_output_feats = d_output_feats / output_map[:, :1].clamp(min=1)
    d_feats.copy_(ops.point_recover(d_output_feats, output_map, len(d_feats)))


def point_recover_fp(
    feats: Tensor, output_feats: Tensor, idx_map: Tensor, nActive: int, maxActive: int, nPlane: int
) -> None:
    """``point_recover``."""
    output_feats.copy_(ops.point_recover(feats.detach(), idx_map, len(output_feats)))


def point_recover_bp(
    d_output_feats: Tensor,
    d_feats: Tensor,
    idx_map: Tensor,
    nActive: int,
    maxActive: int,
    nPlane: int,
) -> None:
    """Its gradient by ``feats``."""
    d_feats.copy_(ops.voxelization(d_output_feats, idx_map, 3))


def ballquery_batch_p(
    xyz: Tensor,
    batch_idxs: Tensor,
    batch_offsets: Tensor,
    idx: Tensor,
    start_len: Tensor,
    n: int,
    meanActive: int,
    radius: float,
) -> int:
    """``ballquery_batch_p``; returns how many neighbours there are, of which ``idx`` may lack some.

    A larger ``idx`` has all.
    """
    neighbours, starts = ops.ballquery_batch_p(xyz, batch_idxs, batch_offsets, radius, meanActive)
    kept = neighbours[: len(idx)]
    idx[: len(kept)] = kept
    start_len.copy_(starts)
    return len(neighbours)


def bfs_cluster(
    semantic_label: Tensor,
    ball_query_idxs: Tensor,
    start_len: Tensor,
    cluster_idxs: Tensor,
    cluster_offsets: Tensor,
    N: int,
    threshold: int,
) -> None:
    """``bfs_cluster``; resizes the two results."""
    results = ops.bfs_cluster(semantic_label, ball_query_idxs, start_len, threshold)
    for out, result in zip((cluster_idxs, cluster_offsets), results, strict=True):
        out.resize_(result.shape).copy_(result)


def roipool_fp(
    feats: Tensor,
    proposals_offset: Tensor,
    output_feats: Tensor,
    output_maxidx: Tensor,
    nProposal: int,
    C: int,
) -> None:
    """``roipool`` and its rows, -1 without rows."""
    largest, rows = segment_max_csr(feats.detach(), proposals_offset)
    output_feats.copy_(largest)
    output_maxidx.copy_(rows.masked_fill(rows == len(feats), -1))


def roipool_bp(
    d_feats: Tensor,
    proposals_offset: Tensor,
    output_maxidx: Tensor,
    d_output_feats: Tensor,
    nProposal: int,
    C: int,
) -> None:
    """Adds its gradient by ``feats`` to ``d_feats``."""
    is_row = output_maxidx >= 0
    rows = output_maxidx.long().clamp(min=0)
    d_feats.scatter_add_(0, rows, d_output_feats.where(is_row, 0))


def get_iou(
    proposals_idx: Tensor,
    proposals_offset: Tensor,
    instance_labels: Tensor,
    instance_pointnum: Tensor,
    proposals_iou: Tensor,
    nInstance: int,
    nProposal: int,
) -> None:
    """``get_iou``."""
    arguments = (proposals_idx, proposals_offset, instance_labels, instance_pointnum)
    proposals_iou.copy_(ops.get_iou(*arguments))


def sec_mean(inp: Tensor, offsets: Tensor, out: Tensor, nProposal: int, C: int) -> None:
    """``sec_mean``."""
    out.copy_(ops.sec_mean(inp, offsets))


def sec_min(inp: Tensor, offsets: Tensor, out: Tensor, nProposal: int, C: int) -> None:
    """``sec_min``."""
    out.copy_(ops.sec_min(inp, offsets))


def sec_max(inp: Tensor, offsets: Tensor, out: Tensor, nProposal: int, C: int) -> None:
    """``sec_max``."""
    out.copy_(ops.sec_max(inp, offsets))
