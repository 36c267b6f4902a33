import importlib
import time

import numpy as np
import pytest
import torch

from detailbase.ops import cloud_superpoints, reference_superpoints
from detailbase.ops.superpoints import COLOR_WEIGHT
from refer3d.native.loader import runnable_variants


def table_with_boxes(rng, spacing=0.02, noise=0.0002):
    """Points of a table top and of two boxes' sides and tops, and which surface each lies on."""
    surfaces = []

    def add(corner, one, other):
        """A rectangle; its edges are left to the neighbours, half a spacing away."""
        corner, one, other = (torch.tensor(v, dtype=torch.float64) for v in (corner, one, other))
        counts = [round(float(way.norm()) / spacing) for way in (one, other)]
        u, v = ((torch.arange(count) + 0.5) / count for count in counts)
        surfaces.append(corner + (u[:, None, None] * one + v[:, None] * other).reshape(-1, 3))

    for x in (0.2, 1.0):
        for begin, way in [((0, 0), (0.4, 0)), ((0.4, 0), (0, 0.4)), ((0, 0.4), (0.4, 0))]:
            add((x + begin[0], 0.2 + begin[1], 0.0), (*way, 0.0), (0.0, 0.0, 0.4))
        add((x, 0.2, 0.4), (0.4, 0.0, 0.0), (0.0, 0.4, 0.0))
    add((0.0, 0.0, 0.0), (1.6, 0.0, 0.0), (0.0, 0.8, 0.0))
    x, y = surfaces[-1][:, 0], surfaces[-1][:, 1]
    below = (((x > 0.2) & (x < 0.6)) | ((x > 1.0) & (x < 1.4))) & (y > 0.2) & (y < 0.6)
    surfaces[-1] = surfaces[-1][~below]
    points = torch.cat(surfaces)
    points += noise * torch.randn(points.shape, generator=rng, dtype=points.dtype)
    which = torch.arange(len(surfaces)).repeat_interleave(torch.tensor([len(s) for s in surfaces]))
    return points, which


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("scale", "least", "neighbours"), [(0.005, 10, 12), (0, 0, 5), (0.02, 5, 30), (0.001, 0, 2)]
)
def test_matches_reference(rng, device, dtype, scale, least, neighbours):
    points = table_with_boxes(rng, spacing=0.05, noise=0.002)[0].to(device, dtype)
    colors = (2 * torch.rand(points.shape, generator=rng) - 1).to(points)
    labels = cloud_superpoints(points, colors, scale, least, neighbours)
    assert labels.max() > 0
    features = COLOR_WEIGHT * colors
    expected = reference_superpoints.cloud_superpoints(points, features, neighbours, scale, least)
    assert torch.equal(labels, expected)


def count_pairs(labels, which):
    counts = torch.zeros(int(labels.max()) + 1, int(which.max()) + 1, dtype=torch.int64)
    return counts.index_put_((labels, which), torch.ones_like(labels), accumulate=True)


def test_sides_of_boxes_on_a_table_come_apart(rng, device):
    points, which = table_with_boxes(rng)
    counts = count_pairs(cloud_superpoints(points.to(device)).cpu(), which)
    # A crease is rounded off over a point or two, which may fall to either side.
    assert counts.amax(dim=1).sum() > 0.93 * len(points)
    main = counts.argmax(dim=0)
    assert len(main.unique()) == counts.shape[1]
    assert (counts.amax(dim=0) > 0.6 * counts.sum(dim=0)).all()


def test_colours_come_apart(rng, device):
    points = torch.rand(900, 3, generator=rng) * torch.tensor([1.0, 1.0, 0.0])
    is_red = points[:, 0] > 0.5
    colors = torch.where(is_red[:, None], torch.tensor([1.0, -1, -1]), torch.tensor(-1.0))
    labels = cloud_superpoints(points.to(device), colors.to(device)).cpu()
    assert len(labels.unique()) == 2
    assert len(labels[is_red].unique()) == 1
    assert cloud_superpoints(points.to(device)).max() == 0


def agreement(labels, expected):
    """Mean over points of the IoU of the two pieces that they lie in."""
    counts = count_pairs(labels, expected).double()
    union = counts.sum(dim=1, keepdim=True) + counts.sum(dim=0, keepdim=True) - counts
    return float((counts / union)[labels, expected].mean())


@pytest.mark.parametrize("change", ["turn", "noise", "half", "order"])
def test_what_does_not_matter_changes_little(rng, device, change):
    points = table_with_boxes(rng, noise=0.001)[0].to(device)
    expected = cloud_superpoints(points)
    if change == "turn":
        cos, sin = 0.8, 0.6
        turn = torch.tensor([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]], dtype=points.dtype)
        assert agreement(cloud_superpoints(points @ turn.to(device)), expected) > 0.99
    elif change == "noise":
        noise = torch.randn(points.shape, generator=rng, dtype=points.dtype).to(device)
        assert agreement(cloud_superpoints(points + 0.001 * noise), expected) > 0.9
    else:
        count = len(points) if change == "order" else len(points) // 2
        kept = torch.randperm(len(points), generator=rng)[:count].to(device)
        bound = 0.99 if change == "order" else 0.8
        assert agreement(cloud_superpoints(points[kept]), expected[kept]) > bound


def test_time_is_not_quadratic(rng):
    """A plane's points all join one piece, whose border grows with it."""

    def seconds(count):
        points = torch.rand(count, 3, generator=rng, dtype=torch.float64) * 0.02
        points *= torch.tensor([count, count, 1.0]).double().sqrt()
        times = []
        for _ in range(3):
            start = time.process_time()
            cloud_superpoints(points)
            times.append(time.process_time() - start)
        return min(times)

    # Linear time would be 8 times as long, quadratic 64; measured 16, by cache misses.
    assert seconds(32_000) < 32 * max(seconds(4000), 0.01)


def test_far_pieces_are_not_joined(rng, device):
    blob = torch.rand(30, 3, generator=rng)
    labels = cloud_superpoints(torch.cat([blob, blob + 100]).to(device)).cpu()
    assert set(labels[:30].tolist()).isdisjoint(labels[30:].tolist())


@pytest.mark.parametrize("count", [0, 1, 2, 3, 10])
def test_few_points_are_one_piece(rng, device, count):
    points = torch.rand(count, 3, generator=rng).to(device)
    assert cloud_superpoints(points).tolist() == [0] * count


def test_points_at_one_place_stay_together(rng, device):
    points = torch.rand(50, 3, generator=rng).repeat_interleave(4, dim=0).to(device)
    labels = cloud_superpoints(points, min_points=0)
    assert (labels.view(50, 4) == labels.view(50, 4)[:, :1]).all()
    assert cloud_superpoints(torch.ones(1000, 3, device=device)).tolist() == [0] * 1000


def test_a_line_is_one_piece(device):
    """Its points have no normal."""
    points = torch.arange(100, device=device).double()[:, None] * torch.tensor(
        [1.0, 2, 4], dtype=torch.float64, device=device
    )
    assert cloud_superpoints(points).tolist() == [0] * 100


def test_operator_is_registered_correctly(rng, device):
    points = torch.rand(40, 3, generator=rng).to(device)
    torch.library.opcheck(
        torch.ops.detailbase.cloud_superpoints.default, (points, points, 8, 0.01, 5)
    )


@pytest.mark.parametrize("variant", runnable_variants())
@pytest.mark.parametrize("threads", [1, 3])
def test_every_variant_gives_the_same(rng, variant, threads):
    module = importlib.import_module(f"detailbase._cpu_{variant}")
    points = table_with_boxes(rng, noise=0.002)[0]
    labels, grey = torch.empty(len(points), dtype=torch.int64), np.zeros((len(points), 3))
    module.cloud_superpoints(points.numpy(), grey, 12, 0.005, 10, threads, labels.numpy())
    assert torch.equal(labels, cloud_superpoints(points))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": torch.zeros(3, 2)}, r"points must have shape \[\*, 3\], got \[3, 2\]"),
        ({"points": torch.zeros(3, 3).int()}, "points must be float32 or float64, got int32"),
        ({"points": torch.full((3, 3), torch.nan)}, "points must be finite, row 0 is not"),
        ({"colors": torch.zeros(2, 3)}, r"colors must have shape \[3, 3\], got \[2, 3\]"),
        ({"colors": torch.full((3, 3), torch.nan)}, "colors must be finite, row 0 is not"),
        ({"scale": torch.nan}, "scale must not be negative, got nan"),
        ({"neighbours": 1}, "neighbours must be at least 2, got 1"),
    ],
)
def test_errors_name_the_argument(change, message):
    with pytest.raises(ValueError, match=message):
        cloud_superpoints(**{"points": torch.zeros(3, 3), **change})
