"""Augmentation changes what it may, as far as it may."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from detailbase.config import AugmentConfig
from detailbase.data.augmentation import ELASTIC, augment, rescan, smooth_noise, transform
from detailbase.scans.clouds import Cloud

NOTHING = AugmentConfig(jitter_chance=0, flip=0, rotate=0, elastic=0, color_chance=0)


@pytest.fixture
def cloud(rng):
    return torch.rand(500, 3, generator=rng) * 4 - 2, torch.rand(500, 3, generator=rng) * 2 - 1


def only(**options: float) -> AugmentConfig:
    return dataclasses.replace(NOTHING, **options)


def distances(xyz: torch.Tensor) -> torch.Tensor:
    return torch.cdist(xyz.double(), xyz.double())


def test_nothing_is_changed_at_chance_zero(cloud):
    xyz, rgb = cloud
    for seed in range(20):
        changed = augment(xyz, rgb, NOTHING, np.random.default_rng(seed))
        assert all(torch.equal(a, b) for a, b in zip(changed[:3], (xyz, xyz, rgb), strict=True))
        assert not changed[3]


def test_all_is_finite_float32_and_repeatable(cloud):
    xyz, rgb = cloud
    before = xyz.clone(), rgb.clone()
    first, again, other = (
        augment(xyz, rgb, AugmentConfig(), np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    for a, b, c in zip(first[:3], again[:3], other[:3], strict=True):
        assert a.dtype == torch.float32
        assert a.isfinite().all()
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
    assert torch.equal(xyz, before[0])
    assert torch.equal(rgb, before[1])


def test_a_flip_mirrors_x(cloud):
    xyz, rgb = cloud
    _, flipped, _, is_mirrored = augment(xyz, rgb, only(flip=1), np.random.default_rng(0))
    assert torch.equal(flipped, xyz * torch.tensor([-1.0, 1.0, 1.0]))
    assert is_mirrored
    assert_close(distances(flipped), distances(xyz))


def test_a_turn_keeps_heights_and_distances(cloud):
    xyz, rgb = cloud
    _, turned, _, is_mirrored = augment(xyz, rgb, only(rotate=1), np.random.default_rng(0))
    assert not is_mirrored
    assert torch.equal(turned[:, 2], xyz[:, 2])
    assert (turned[:, :2] - xyz[:, :2]).abs().max() > 0.1
    # float32 places of up to 3 m; worst seen 6e-7.
    assert_close(distances(turned), distances(xyz), rtol=0, atol=3e-6)
    matrix = transform(only(rotate=1), np.random.default_rng(0))
    assert np.linalg.det(matrix) == pytest.approx(1)


def test_turns_go_all_the_way_round():
    matrices = [transform(only(rotate=1), np.random.default_rng(seed)) for seed in range(400)]
    angles = [np.arctan2(matrix[0, 1], matrix[0, 0]) for matrix in matrices]
    counts, _ = np.histogram(angles, bins=8, range=(-np.pi, np.pi))
    assert counts.min() > 25  # 50 expected, with a deviation of 6.6


@pytest.mark.parametrize("option", ["flip", "elastic"])
def test_chances_are_kept(cloud, option):
    xyz, rgb = cloud
    count = 0
    for seed in range(400):
        places, *_ = augment(xyz[:8], rgb[:8], only(**{option: 0.3}), np.random.default_rng(seed))
        count += not torch.equal(places, xyz[:8])
    assert 85 < count < 155  # 120 expected, with a deviation of 9.2


def test_jitter_is_as_large_as_asked():
    options = only(jitter_chance=1, jitter=0.1)
    maps = np.stack([transform(options, np.random.default_rng(s)) for s in range(500)]) - np.eye(3)
    assert maps.std() == pytest.approx(0.1, rel=0.05)
    assert np.abs(maps.mean(axis=0)).max() < 0.02


def test_a_colour_shift_is_the_same_for_all_points(cloud):
    xyz, rgb = cloud
    options = only(color_chance=1, color=0.1)
    shifts = [augment(xyz, rgb, options, np.random.default_rng(s))[2] - rgb for s in range(200)]
    for shift in shifts:
        assert_close(shift, shift[:1].expand_as(shift), rtol=0, atol=1e-6)
    assert float(torch.stack(shifts)[:, 0].std()) == pytest.approx(0.1, rel=0.1)


def test_bending_moves_places_but_not_features(cloud):
    xyz, rgb = cloud
    places, features, *_ = augment(xyz, rgb, only(elastic=1), np.random.default_rng(0))
    assert torch.equal(features, xyz)
    moved = (places - xyz).norm(dim=1)
    assert 0.01 < moved.mean() < 1
    # No node can go farther than its noise, of which 5.5 deviations are never seen.
    assert moved.max() < 5.5 * 3**0.5 * sum(magnitude for _, magnitude in ELASTIC)


def test_noise_is_smooth_and_as_large_as_said():
    line = np.linspace(0, 40, 4001, dtype=np.float32)
    points = np.stack([line, 0 * line, 0 * line + line % 7], axis=1)
    noise = smooth_noise(points, 1.0, np.random.default_rng(0))
    assert noise.shape == (4001, 3)
    assert noise.dtype == np.float32
    steps = np.diff(noise, axis=0)[np.diff(points[:, 2]) > 0]  # 0.014 of a cell apart
    assert np.abs(steps).max() < 0.02
    nodes = np.stack(np.meshgrid(*[range(20)] * 3), axis=-1).reshape(-1, 3).astype(np.float32)
    noise = smooth_noise(nodes, 1.0, np.random.default_rng(0))
    # (19 / 81)^1.5: the squared weights of two box filters of three, in three dimensions.
    assert noise.std() == pytest.approx((19 / 81) ** 1.5, rel=0.05)


@pytest.mark.parametrize("count", [1, 2])
def test_few_points_can_be_changed(count):
    changed = augment(torch.zeros(count, 3), torch.zeros(count, 3), AugmentConfig(),
                      np.random.default_rng(0))  # fmt: skip
    assert all(part.isfinite().all() and part.shape == (count, 3) for part in changed[:3])


@pytest.fixture
def room() -> Cloud:
    """Two walls of 2 000 points each, the second an object."""
    rng = torch.Generator().manual_seed(0)
    flat = 3 * torch.rand(4000, 2, generator=rng)
    zeros, is_second = torch.zeros(4000), torch.arange(4000) >= 2000
    first = torch.stack([flat[:, 0], zeros, flat[:, 1]], dim=1)
    second = torch.stack([zeros, flat[:, 0], flat[:, 1]], dim=1)
    xyz = torch.where(is_second[:, None], second, first)
    labels = is_second.long()
    return Cloud(xyz, xyz / 3, labels * 2 + (xyz[:, 2] > 1.5), labels, labels)


@pytest.mark.parametrize(
    ("option", "value"), [("thin", 0.9), ("holes", 0.3), ("noise", 0.01), ("resegment", 1.0)]
)
def test_another_scan_of_a_room_keeps_its_objects(room, option, value):
    sizes, superpoints = [], []
    for seed in range(5):
        other = rescan(room, only(**{option: value}), np.random.default_rng(seed))
        sizes.append(len(other))
        superpoints.append(other.num_superpoints)
        assert other.superpoints.unique().tolist() == list(range(other.num_superpoints))
        # Each point lies on the wall that it is labelled with.
        assert other.xyz[other.instances == 1, 0].abs().max() < 0.06
        assert other.xyz[other.instances == 0, 1].abs().max() < 0.06
    lost = 1 - np.array(sizes) / len(room)
    if option == "thin":
        assert lost.max() > 0.4
    elif option == "holes":
        assert 0.02 < lost.max() <= 0.3
    else:
        assert lost.max() == 0
    assert (option == "resegment") == (superpoints != [4] * 5)
    assert rescan(room, NOTHING, np.random.default_rng(0)) is room
