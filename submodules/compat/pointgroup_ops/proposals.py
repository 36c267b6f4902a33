"""Instances from points: neighbours, clusters, and what is computed of each cluster."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree
from torch import Tensor

from refer3d.native import check_shape
from torch_scatter import segment_csr

MAX_NEIGHBOURS = 1000
"""Of a point, as PointGroup's extension has it."""


@torch.no_grad()
def ballquery_batch_p(
    coords: Tensor,  # [N, 3]
    batch_idxs: Tensor,  # [N]
    batch_offsets: Tensor,  # [B + 1]
    radius: float,
    meanActive: int,
) -> tuple[Tensor, Tensor]:
    """Finds the points of the same scene that are nearer than a radius. Runs on the CPU.

    Args:
        coords: Floats; distances are compared in float32. The scenes follow each other.
        batch_idxs: Each point's scene; ``batch_offsets`` says the same.
        batch_offsets: First point of each scene, and the number of points.
        radius: In the unit of ``coords``.
        meanActive: Without effect: memory for so many neighbours was reserved.

    Returns:
        neighbours: [A] int32, those of the first point, then those of the second; each point is its
            own. They rise. The first 1000 are kept.
        start_len: [N, 2] int32: where a point's neighbours begin, and how many there are.

    Raises:
        ValueError: If a shape, or the last offset, does not fit.
    """
    check_shape("coords", coords, (None, 3))
    check_shape("batch_idxs", batch_idxs, (len(coords),))
    offsets = batch_offsets.tolist()
    if not offsets or offsets[0] != 0 or offsets[-1] != len(coords):
        raise ValueError(
            f"batch_offsets must begin with 0 and end with the {len(coords)} points, got {offsets}"
        )
    places = coords.float().cpu()
    points, others = [torch.zeros(0, dtype=torch.int64)], [torch.zeros(0, dtype=torch.int64)]
    for begin, end in pairwise(offsets):
        tree = KDTree(places[begin:end].numpy()) if end > begin else None
        if tree is None:
            continue
        # Somewhat farther, so that float32 decides.
        pairs = tree.sparse_distance_matrix(tree, radius * (1 + 1e-5), output_type="ndarray")
        order = np.lexsort((pairs["j"], pairs["i"]))
        points.append(begin + torch.from_numpy(pairs["i"][order].astype(np.int64)))
        others.append(begin + torch.from_numpy(pairs["j"][order].astype(np.int64)))
    point, other = torch.cat(points), torch.cat(others)
    is_near = (places[point] - places[other]).square().sum(dim=1) < places.new_tensor(radius) ** 2
    point, other = point[is_near], other[is_near]
    sizes = torch.bincount(point, minlength=len(coords))
    rank = torch.arange(len(point)) - (sizes.cumsum(dim=0) - sizes)[point]
    other, sizes = other[rank < MAX_NEIGHBOURS], sizes.clamp(max=MAX_NEIGHBOURS)
    start_len = torch.stack([sizes.cumsum(dim=0) - sizes, sizes], dim=1)
    return other.int().to(coords.device), start_len.int().to(coords.device)


@torch.no_grad()
def bfs_cluster(
    semantic_label: Tensor,  # [N]
    ball_query_idxs: Tensor,  # [A]
    start_len: Tensor,  # [N, 2]
    threshold: float,
) -> tuple[Tensor, Tensor]:
    """Joins neighbours of one label to clusters. Runs on the CPU.

    Args:
        semantic_label: Each point's label.
        ball_query_idxs: As ``ballquery_batch_p`` gives them; a point and its neighbour are
            joined in either direction.
        start_len: As there.
        threshold: Smaller clusters are left out.

    Returns:
        cluster_idxs: [S, 2] int32, cluster and point, in the order of the clusters' first points;
            a cluster's points rise.
        cluster_offsets: [C + 1] int32, where each cluster begins.

    Raises:
        ValueError: If a shape does not fit.
    """
    check_shape("start_len", start_len, (None, 2))
    count = len(start_len)
    check_shape("semantic_label", semantic_label, (count,))
    check_shape("ball_query_idxs", ball_query_idxs, (None,))
    labels = semantic_label.cpu()
    start, sizes = start_len.cpu().long().unbind(dim=1)
    point = torch.arange(count).repeat_interleave(sizes)
    rank = torch.arange(len(point)) - (sizes.cumsum(dim=0) - sizes)[point]
    other = ball_query_idxs.cpu().long()[start[point] + rank]
    is_joined = labels[point] == labels[other]
    ends = (point[is_joined].numpy(), other[is_joined].numpy())
    graph = coo_array((np.ones(len(ends[0]), dtype=bool), ends), shape=(count, count))
    # Components are numbered by their first points.
    cluster = torch.from_numpy(connected_components(graph, directed=False)[1]).long()
    sizes = torch.bincount(cluster)
    is_kept = sizes >= threshold
    number = is_kept.cumsum(dim=0) - 1
    points = cluster.argsort(dim=0, stable=True)
    points = points[is_kept[cluster[points]]]
    offsets = torch.cat([sizes.new_zeros(1), sizes[is_kept].cumsum(dim=0)])
    pairs = torch.stack([number[cluster[points]], points], dim=1)
    return pairs.int().to(start_len.device), offsets.int().to(start_len.device)


def roipool(
    feats: Tensor,  # [S, C]
    proposals_offset: Tensor,  # [P + 1]
) -> Tensor:  # [P, C]
    """The largest features of each proposal's rows; differentiable. 0 without rows."""
    check_shape("feats", feats, (None, None))
    return segment_csr(feats, proposals_offset, reduce="max")


@torch.no_grad()
def sec_mean(inp: Tensor, offsets: Tensor) -> Tensor:  # [S, C], [P + 1] -> [P, C]
    """The mean of the rows offsets[i] to offsets[i + 1] - 1; a constant. 0 without rows."""
    return segment_csr(inp, offsets, reduce="mean")


@torch.no_grad()
def sec_min(inp: Tensor, offsets: Tensor) -> Tensor:  # [S, C], [P + 1] -> [P, C]
    """The smallest of each column of these rows; see :func:`sec_mean`."""
    return segment_csr(inp, offsets, reduce="min")


@torch.no_grad()
def sec_max(inp: Tensor, offsets: Tensor) -> Tensor:  # [S, C], [P + 1] -> [P, C]
    """The largest of each column of these rows; see :func:`sec_mean`."""
    return segment_csr(inp, offsets, reduce="max")


@torch.no_grad()
def get_iou(
    proposals_idx: Tensor,  # [S]
    proposals_offset: Tensor,  # [P + 1]
    instance_labels: Tensor,  # [N]
    instance_pointnum: Tensor,  # [I]
    is_counted: Tensor | None = None,  # [S]
) -> Tensor:  # [P, I]
    """Intersection over union of proposals and instances, with 1e-5 added to the union.

    Args:
        proposals_idx: Points of the proposals, one proposal after the other.
        proposals_offset: Where each proposal begins, and S.
        instance_labels: Each point's instance; others than 0..I-1 are none.
        instance_pointnum: Number of points of each instance.
        is_counted: False leaves out a proposal's point; not in PointGroup's.

    Raises:
        ValueError: If a shape does not fit.
    """
    check_shape("proposals_idx", proposals_idx, (None,))
    sizes = proposals_offset.long().diff()
    if int(sizes.sum()) != len(proposals_idx):
        raise ValueError(
            f"proposals_offset must end with the {len(proposals_idx)} rows of proposals_idx, got "
            f"{int(proposals_offset[-1])}"
        )
    proposals, instances = len(sizes), len(instance_pointnum)
    proposal = torch.arange(proposals, device=sizes.device).repeat_interleave(sizes)
    label = instance_labels[proposals_idx.long()].long()
    if is_counted is not None:
        proposal, label = proposal[is_counted], label[is_counted]
        sizes = torch.bincount(proposal, minlength=proposals)
    is_instance = (label >= 0) & (label < instances)
    pair = (proposal * instances + label)[is_instance]
    common = torch.bincount(pair, minlength=proposals * instances).view(proposals, instances)
    union = sizes[:, None] + instance_pointnum - common
    return common.float() / (union.float() + 1e-5)
