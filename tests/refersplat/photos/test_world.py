"""The world of found poses: level, scaled, with the scene's middle at the origin."""

import numpy as np
import pytest

from refersplat.photos.world import MEDIAN_DEPTH, find_center, find_up, level


def look_at(positions, target, up):
    """Rotations world to camera [V, 3, 3] of cameras without roll."""
    forward = target - positions
    forward /= np.linalg.norm(forward, axis=1, keepdims=True)
    right = np.cross(forward, up)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    return np.stack([right, np.cross(forward, right), forward], axis=1)


def ring(number, height, radius=3.0, span=2 * np.pi):
    angles = np.linspace(0, span, number, endpoint=False)
    return np.stack([radius * np.cos(angles), radius * np.sin(angles),
                     np.full(number, height)], axis=1)  # fmt: skip


def turned(seed=0):
    """A rotation and what it makes of z."""
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    rotation *= np.linalg.det(rotation)
    return rotation, rotation[:, 2]


@pytest.mark.parametrize("height", [0.0, 2.0, 8.0], ids=["level", "above", "steep"])
@pytest.mark.parametrize("span", [2 * np.pi, 1.5], ids=["round", "from one side"])
def test_up_comes_from_cameras_without_roll(height, span):
    rotation, up = turned()
    positions = ring(24, height, span=span) @ rotation.T
    found = find_up(look_at(positions, np.zeros(3), up))
    assert np.degrees(np.arccos(found @ up)) < 1e-3


def test_photos_held_upright_do_not_tilt_the_world():
    rotation, up = turned()
    cameras = look_at(ring(24, 2.0) @ rotation.T, np.zeros(3), up)
    quarter = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    cameras[::4] = quarter @ cameras[::4]
    assert np.degrees(np.arccos(find_up(cameras) @ up)) < 1.0


def test_cameras_side_by_side_take_the_mean_up():
    positions = np.stack([np.linspace(-1, 1, 9), np.full(9, -3.0), np.zeros(9)], axis=1)
    forward = positions + np.array([0.0, 1.0, 0.0])
    found = find_up(look_at(positions, forward, np.array([0.0, 0, 1])))
    np.testing.assert_allclose(found, [0, 0, 1], atol=1e-9)


def test_center_is_where_cameras_look_or_the_points_are():
    positions, target = ring(12, 1.0), np.array([0.3, -0.2, 0.1])
    points = np.random.default_rng(0).normal(size=(99, 3))
    cameras = look_at(positions, target, np.array([0.0, 0, 1]))
    np.testing.assert_allclose(find_center(cameras, positions, points), target, atol=1e-9)
    outwards = look_at(positions, 2 * positions, np.array([0.0, 0, 1]))
    found = find_center(outwards, positions, points)
    np.testing.assert_allclose(found, np.median(points, axis=0))


def test_level_undoes_any_similarity():
    rotation, _ = turned(3)
    points = np.random.default_rng(1).normal(scale=0.3, size=(200, 3))
    positions = ring(24, 2.0)
    original = look_at(positions, np.zeros(3), np.array([0.0, 0, 1]))
    shift = np.array([5.0, -2, 9])
    moved, places = 7.0 * points @ rotation.T + shift, 7.0 * positions @ rotation.T + shift
    change = level(original @ rotation.T, places, moved)
    result, cameras = change(moved), change(places)
    assert np.linalg.det(change.rotation) == pytest.approx(1)
    # Heights and distances are back, up to the unit; the turn about z is free.
    np.testing.assert_allclose(cameras[:, 2], 2.0 * change.scale * 7.0, rtol=1e-6)
    np.testing.assert_allclose(
        np.linalg.norm(result, axis=1), 7.0 * change.scale * np.linalg.norm(points, axis=1)
    )
    axes = (original @ rotation.T @ change.rotation.T)[:, 2]
    depths = result @ axes.T - (cameras * axes).sum(axis=1)
    assert np.median(depths[depths > 0]) == pytest.approx(MEDIAN_DEPTH)
