"""Neighbours, clusters and proposals, against loops."""

import importlib
from itertools import pairwise

import pytest
import torch
from torch.testing import assert_close

import PG_OP
import pointgroup_ops
from softgroup import ops as softgroup_ops
from tests.errors import raises

OFFSETS = torch.tensor([0, 3, 3, 4, 9], dtype=torch.int32)
"""Rows of four proposals, one of which has none."""


def scenes(rng, device, sizes=(40, 0, 30), side=4):
    """Points on a grid, so that many distances equal the radius; their scenes and offsets."""
    coords = torch.randint(0, side, (sum(sizes), 3), generator=rng).float() / 4
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)).int()
    offsets = torch.tensor([0, *sizes]).cumsum(dim=0).int()
    return coords.to(device), batch.to(device), offsets.to(device)


def neighbours_by_loops(coords, batch, radius):
    coords = coords.cpu()
    return [
        [
            j
            for j in range(len(coords))
            if batch[i] == batch[j] and (coords[i] - coords[j]).square().sum() < radius**2
        ]
        for i in range(len(coords))
    ]


@pytest.mark.parametrize("radius", [0.25, 0.4])
def test_neighbours_equal_loops(rng, device, radius):
    coords, batch, offsets = scenes(rng, device)
    found, start_len = pointgroup_ops.ballquery_batch_p(coords, batch, offsets, radius, 50)
    assert found.dtype == start_len.dtype == torch.int32
    lists = [found[start : start + size].tolist() for start, size in start_len.tolist()]
    assert lists == neighbours_by_loops(coords, batch, radius)
    assert start_len[0, 0] == 0


def test_no_more_than_1000_neighbours(device):
    coords = torch.zeros(1003, 3, device=device)
    batch, offsets = torch.zeros(1003, dtype=torch.int32), torch.tensor([0, 1003])
    found, start_len = pointgroup_ops.ballquery_batch_p(coords, batch, offsets, 0.1, 50)
    assert start_len[:2].tolist() == [[0, 1000], [1000, 1000]]
    assert found[1000:2000].tolist() == list(range(1000))


@pytest.mark.parametrize("threshold", [1, 4])
def test_clusters_equal_a_search(rng, device, threshold):
    coords, batch, offsets = scenes(rng, device, side=5)
    labels = torch.randint(0, 2, (len(coords),), generator=rng).int()
    near = pointgroup_ops.ballquery_batch_p(coords, batch, offsets, 0.26, 50)
    members, offsets = pointgroup_ops.bfs_cluster(labels, *(x.cpu() for x in near), threshold)
    expected, seen = [], set()
    lists = neighbours_by_loops(coords, batch, 0.26)
    for first in range(len(coords)):
        if first in seen:
            continue
        cluster, queue = {first}, [first]
        while queue:
            for j in lists[queue.pop()]:
                if labels[j] == labels[first] and j not in cluster:
                    cluster.add(j)
                    queue.append(j)
        seen |= cluster
        if len(cluster) >= threshold:
            expected.append(sorted(cluster))
    assert len(expected) > 2
    rows = [members[a:b, 1].tolist() for a, b in pairwise(offsets.tolist())]
    assert rows == expected
    assert members[:, 0].tolist() == [i for i, c in enumerate(expected) for _ in c]
    assert members.dtype == offsets.dtype == torch.int32


@pytest.mark.parametrize("name", ["mean", "min", "max"])
def test_sections_equal_loops(rng, device, name):
    rows = torch.randn(9, 4, generator=rng).to(device).requires_grad_()
    got = getattr(pointgroup_ops, f"sec_{name}")(rows, OFFSETS.to(device))
    one = {"mean": torch.mean, "min": torch.amin, "max": torch.amax}[name]
    parts = rows.split(OFFSETS.diff().tolist())
    wanted = [one(p, dim=0) if len(p) else torch.zeros(4, device=device) for p in parts]
    assert_close(got, torch.stack(wanted).detach())
    assert not got.requires_grad


@pytest.mark.parametrize(
    "pool", [pointgroup_ops.roipool, softgroup_ops.global_avg_pool], ids=["max", "mean"]
)
def test_pooling_is_differentiable(rng, pool):
    rows = torch.randn(9, 2, generator=rng, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: pool(x, OFFSETS), (rows,))
    assert pool(rows, OFFSETS)[1].tolist() == [0, 0]


def overlaps(rng):
    """Points of proposals, each point's instance, the instances' sizes, scores."""
    points = torch.randint(0, 12, (9,), generator=rng).int()
    instances = torch.tensor([0, 0, 1, 1, 1, 2, 2, -100, -100, 2, 0, 1])
    sizes = torch.tensor([(instances == i).sum() for i in range(3)], dtype=torch.int32)
    return points, instances, sizes, torch.rand(9, 1, generator=rng)


@pytest.mark.parametrize("with_scores", [False, True])
def test_overlaps_equal_loops(rng, device, with_scores):
    points, instances, sizes, scores = overlaps(rng)
    wanted = torch.zeros(4, 3)
    for proposal, (begin, end) in enumerate(pairwise(OFFSETS.tolist())):
        rows = [i for i in range(begin, end) if not with_scores or scores[i] > 0.5]
        for instance in range(3):
            common = sum(int(instances[points[i]]) == instance for i in rows)
            wanted[proposal, instance] = common / (len(rows) + sizes[instance] - common + 1e-5)
    given = [x.to(device) for x in (points, OFFSETS, instances, sizes)]
    if with_scores:
        got = softgroup_ops.get_mask_iou_on_pred(*given, scores.to(device))
    else:
        got = pointgroup_ops.get_iou(*given)
        assert torch.equal(softgroup_ops.get_mask_iou_on_cluster(*given), got)
    assert got.dtype == torch.float32
    assert_close(got.cpu(), wanted)


def test_mask_labels(rng, device):
    points, instances, sizes, _ = overlaps(rng)
    iou = torch.tensor([[0.2, 0.6, 0.7], [0, 0, 0], [0.3, 0.1, 0.9], [0.6, 0.6, 0.1]])
    classes = torch.tensor([4, 5, -100])  # the third is ignored
    given = (x.to(device) for x in (points, OFFSETS, instances, classes, sizes, iou))
    got = softgroup_ops.get_mask_label(*given, 0.5).tolist()
    best = [1, None, None, 0]
    sizes = OFFSETS.diff().tolist()
    chosen = [b for b, size in zip(best, sizes, strict=True) for _ in range(size)]
    wanted = [
        -1 if b is None else float(instances[p] == b) for b, p in zip(chosen, points, strict=True)
    ]
    assert got == wanted


def test_softgroups_clusters_are_of_one_class(rng, device):
    coords, batch, offsets = scenes(rng, device, side=5)
    near = softgroup_ops.ball_query(coords, batch, offsets, 0.26, 300)
    means = torch.tensor([-1.0, 20])
    labels = torch.zeros(len(coords), dtype=torch.int32)
    for class_id, least in ((0, 0.2), (1, 4)):
        got = softgroup_ops.bfs_cluster(means, *(x.cpu() for x in near), 0.2, class_id)
        wanted = pointgroup_ops.bfs_cluster(labels, *(x.cpu() for x in near), least)
        assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))
    octree = softgroup_ops.ball_query(coords, batch, offsets, 0.26, 300, with_octree=True)
    assert len(octree[0]) > len(near[0])


def test_softgroups_model_finds_its_ops(tmp_path, monkeypatch):
    """Its own folder softgroup has no __init__.py, and here no folder ops."""
    (tmp_path / "softgroup" / "model").mkdir(parents=True)
    code = "from ..ops import ball_query, get_mask_label, global_avg_pool, voxelization_idx\n"
    (tmp_path / "softgroup" / "model" / "__init__.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    model = importlib.import_module("softgroup.model")
    assert model.ball_query is softgroup_ops.ball_query


def test_as_pointgroups_model_calls_them(rng, device):
    """From points to scored proposals, as in its forward pass."""
    coords, batch, offsets = scenes(rng, device)
    labels = torch.zeros(len(coords), dtype=torch.int32)
    idx, start_len = pointgroup_ops.ballquery_batch_p(coords, batch, offsets, 0.3, 50)
    proposals, proposal_offsets = pointgroup_ops.bfs_cluster(labels, idx.cpu(), start_len.cpu(), 2)
    features = torch.randn(len(coords), 4, generator=rng).to(device).requires_grad_()
    rows = features[proposals[:, 1].long().to(device)]
    scores = pointgroup_ops.roipool(rows, proposal_offsets.to(device))
    centres = pointgroup_ops.sec_mean(rows, proposal_offsets.to(device))
    assert scores.shape == centres.shape == (len(proposal_offsets) - 1, 4)
    scores.sum().backward()
    assert features.grad.count_nonzero() == scores.numel()


def test_the_extensions_functions_write_into_tensors(rng, device):
    """As lib/pointgroup_ops/functions/pointgroup_ops.py calls PG_OP."""
    coords, batch, offsets = scenes(rng, device)
    count, mean = len(coords), 1
    while True:
        idx = torch.zeros(count * mean, dtype=torch.int32, device=device)
        start_len = torch.zeros(count, 2, dtype=torch.int32, device=device)
        total = PG_OP.ballquery_batch_p(coords, batch, offsets, idx, start_len, count, mean, 0.3)
        if total <= count * mean:
            break
        mean = total // count + 1
    wanted = pointgroup_ops.ballquery_batch_p(coords, batch, offsets, 0.3, 1)
    assert torch.equal(idx[:total], wanted[0])
    assert torch.equal(start_len, wanted[1])

    labels = torch.zeros(count, dtype=torch.int32)
    members, starts = labels.new(), labels.new()
    PG_OP.bfs_cluster(labels, idx.cpu(), start_len.cpu(), members, starts, count, 2)
    wanted = pointgroup_ops.bfs_cluster(labels, wanted[0].cpu(), wanted[1].cpu(), 2)
    assert torch.equal(members, wanted[0])
    assert torch.equal(starts, wanted[1])

    rows = torch.randn(9, 3, generator=rng).to(device).requires_grad_()
    pooled = torch.zeros(4, 3, device=device)
    places = torch.zeros(4, 3, dtype=torch.int32, device=device)
    PG_OP.roipool_fp(rows, OFFSETS.to(device), pooled, places, 4, 3)
    same = pointgroup_ops.roipool(rows, OFFSETS.to(device))
    assert_close(pooled, same.detach())
    slopes, gradient = torch.randn(4, 3, generator=rng).to(device), torch.zeros_like(rows)
    PG_OP.roipool_bp(gradient, OFFSETS.to(device), places, slopes, 4, 3)
    assert_close(gradient, torch.autograd.grad(same, rows, slopes)[0])
    for name in ("sec_mean", "sec_min", "sec_max"):
        out = torch.zeros(4, 3, device=device)
        getattr(PG_OP, name)(rows, OFFSETS.to(device), out, 4, 3)
        assert_close(out, getattr(pointgroup_ops, name)(rows, OFFSETS.to(device)))

    points, instances, sizes, _ = overlaps(rng)
    given, iou = [x.to(device) for x in (points, OFFSETS, instances, sizes)], torch.zeros(4, 3)
    PG_OP.get_iou(*given, iou, 3, 4)
    assert_close(iou, pointgroup_ops.get_iou(*given).cpu())


@pytest.mark.parametrize("mode", [3, 4])
def test_the_extensions_voxels_and_their_gradients(rng, device, mode):
    coords = torch.randint(0, 3, (20, 4), generator=rng).to(device)
    voxels, point_map = coords.new(), torch.zeros(20, dtype=torch.int32, device=device)
    rule = point_map.new()
    PG_OP.voxelize_idx(coords, voxels, point_map, rule, 3, mode)
    for got, wanted in zip(
        (voxels, point_map, rule), pointgroup_ops.voxelization_idx(coords, 3, mode), strict=True
    ):
        assert torch.equal(got, wanted)
    size = (len(rule), rule.shape[1] - 1, 5)
    features = torch.randn(20, 5, generator=rng).to(device).requires_grad_()
    wanted = pointgroup_ops.voxelization(features, rule, mode)
    out, slopes = torch.zeros(len(rule), 5, device=device), torch.randn(len(rule), 5).to(device)
    PG_OP.voxelize_fp(features, out, rule, mode, *size)
    assert_close(out, wanted.detach())
    gradient = torch.zeros_like(features)
    PG_OP.voxelize_bp(slopes, gradient, rule, mode, *size)
    assert_close(gradient, torch.autograd.grad(wanted, features, slopes)[0])

    values = torch.randn(len(rule), 5, generator=rng).to(device).requires_grad_()
    recovered = pointgroup_ops.point_recover(values, rule, 20)
    assert torch.equal(recovered, values[point_map.long()])
    out = torch.zeros(20, 5, device=device)
    PG_OP.point_recover_fp(values, out, rule, *size)
    assert torch.equal(out, recovered)
    slopes, gradient = torch.randn(20, 5).to(device), torch.zeros_like(values)
    PG_OP.point_recover_bp(slopes, gradient, rule, *size)
    assert_close(gradient, torch.autograd.grad(recovered, values, slopes)[0])


def test_nothing(device):
    none = torch.zeros(0, dtype=torch.int32, device=device)
    offsets = torch.zeros(1, dtype=torch.int32, device=device)
    coords = torch.zeros(0, 3, device=device)
    idx, start_len = pointgroup_ops.ballquery_batch_p(coords, none, offsets, 0.1, 50)
    assert (idx.shape, start_len.shape) == ((0,), (0, 2))
    members, starts = pointgroup_ops.bfs_cluster(none, idx, start_len, 1)
    assert (members.shape, starts.tolist()) == ((0, 2), [0])
    assert pointgroup_ops.roipool(coords, offsets).shape == (0, 3)
    assert pointgroup_ops.get_iou(none, offsets, none.long(), none).shape == (0, 0)


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (
            lambda: pointgroup_ops.ballquery_batch_p(
                torch.zeros(3, 3), torch.zeros(3), torch.tensor([0, 2]), 1, 1
            ),
            ("batch_offsets", 3),
        ),
        (
            lambda: pointgroup_ops.bfs_cluster(
                torch.zeros(2), torch.zeros(3), torch.zeros(3, 2).int(), 1
            ),
            ("semantic_label", "[3]"),
        ),
        (lambda: pointgroup_ops.roipool(torch.zeros(3), OFFSETS), ("feats",)),
        (
            lambda: pointgroup_ops.get_iou(torch.zeros(3).int(), OFFSETS, OFFSETS, OFFSETS),
            ("proposals_offset", 3, 9),
        ),
        (lambda: pointgroup_ops.point_recover(torch.zeros(3, 1), OFFSETS[None], 1), ("feats",)),
    ],
)
def test_errors_name_the_argument(call, names):
    with raises(ValueError, *names):
        call()
