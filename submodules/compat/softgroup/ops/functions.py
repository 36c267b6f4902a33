"""PointGroup's ops with SoftGroup's names and arguments, and those that it adds."""

from __future__ import annotations

import torch
from torch import Tensor

import pointgroup_ops
from pointgroup_ops import (
    ballquery_batch_p,
    sec_max,
    sec_mean,
    sec_min,
    voxelization,
    voxelization_idx,
)
from pointgroup_ops import get_iou as get_mask_iou_on_cluster
from torch_scatter import segment_csr

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


def ball_query(
    coords: Tensor,  # [N, 3]
    batch_idxs: Tensor,  # [N]
    batch_offsets: Tensor,  # [B + 1]
    radius: float,
    mean_active: int,
    with_octree: bool = False,
) -> tuple[Tensor, Tensor]:
    """``pointgroup_ops.ballquery_batch_p``; ``with_octree`` takes all points as one scene."""
    if with_octree:
        batch_idxs = torch.zeros_like(batch_idxs)
        batch_offsets = torch.tensor([0, len(coords)])
    return ballquery_batch_p(coords, batch_idxs, batch_offsets, radius, mean_active)


def bfs_cluster(
    cluster_numpoint_mean: Tensor,  # [C]
    ball_query_idxs: Tensor,  # [A]
    start_len: Tensor,  # [N, 2]
    threshold: float,
    class_id: int,
) -> tuple[Tensor, Tensor]:
    """``pointgroup_ops.bfs_cluster`` of points of one class.

    Args:
        cluster_numpoint_mean: Mean number of points of each class's instances; -1 is not known.
        ball_query_idxs: Neighbours.
        start_len: Where a point's neighbours begin, and how many there are.
        threshold: Share of this mean, or a number of points where it is not known.
        class_id: The class.
    """
    mean = float(cluster_numpoint_mean[class_id])
    least = threshold if mean == -1 else threshold * mean
    labels = torch.zeros(len(start_len), dtype=torch.int32)
    return pointgroup_ops.bfs_cluster(labels, ball_query_idxs, start_len, least)


def get_mask_iou_on_pred(
    proposals_idx: Tensor,  # [S]
    proposals_offset: Tensor,  # [P + 1]
    instance_labels: Tensor,  # [N]
    instance_pointnum: Tensor,  # [I]
    mask_scores_sigmoid: Tensor,  # [S] or [S, 1]
) -> Tensor:  # [P, I]
    """``get_mask_iou_on_cluster`` of the points whose score is above 0.5."""
    given = (proposals_idx, proposals_offset, instance_labels, instance_pointnum)
    return get_mask_iou_on_cluster(*given, mask_scores_sigmoid.reshape(-1) > 0.5)


@torch.no_grad()
def get_mask_label(
    proposals_idx: Tensor,  # [S]
    proposals_offset: Tensor,  # [P + 1]
    instance_labels: Tensor,  # [N]
    instance_cls: Tensor,  # [I]
    instance_pointnum: Tensor,  # [I]
    proposals_iou: Tensor,  # [P, I]
    iou_thr: float,
) -> Tensor:  # [S]
    """Whether each point of a proposal belongs to the instance that it overlaps most.

    Args:
        proposals_idx: Points of the proposals, one proposal after the other.
        proposals_offset: Where each proposal begins, and S.
        instance_labels: Each point's instance.
        instance_cls: Each instance's class; -100 is overlapped by none.
        instance_pointnum: Without effect.
        proposals_iou: Overlaps.
        iou_thr: Least overlap.

    Returns:
        [S] float32: 1 and 0, or -1 where the proposal overlaps no instance enough.
    """
    overlap = proposals_iou.masked_fill(instance_cls == -100, 0)
    # The first instance stands for none, as where there is none.
    largest, instance = torch.cat([overlap, overlap.new_zeros(len(overlap), 1)], dim=1).max(dim=1)
    instance = instance.where(largest > 0, 0)
    proposal = torch.arange(len(overlap), device=overlap.device)
    proposal = proposal.repeat_interleave(proposals_offset.long().diff())
    is_inside = instance_labels[proposals_idx.long()] == instance[proposal]
    return is_inside.float().masked_fill(largest[proposal] < iou_thr, -1)


def global_avg_pool(
    feats: Tensor,  # [S, C]
    proposals_offset: Tensor,  # [P + 1]
) -> Tensor:  # [P, C]
    """The mean features of each proposal's rows; differentiable. 0 without rows."""
    return segment_csr(feats, proposals_offset, reduce="mean")
