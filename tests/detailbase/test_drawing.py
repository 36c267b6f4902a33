"""Pictures of scans: near points hide far ones, and masks are visible."""

from __future__ import annotations

import numpy as np

from detailbase.inference.drawing import (
    AWAY,
    COLORS,
    RIGHT,
    draw_cloud,
    draw_masks,
    occluders,
    tint,
)

RED, BLUE = (255, 0, 0), (0, 0, 255)


def plane(away: float, low: float, high: float) -> np.ndarray:
    """An upright wall across the view."""
    along, up = np.meshgrid(np.arange(-2, 2, 0.02), np.arange(low, high, 0.02))
    return along.ravel()[:, None] * RIGHT + away * AWAY + up.ravel()[:, None] * [0, 0, 1]


def painted(xyz: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    return np.tile(np.array(color, dtype=np.uint8), (len(xyz), 1))


def share(image: np.ndarray, color: tuple[int, int, int]) -> float:
    return float((image == color).all(axis=-1).mean())


def test_a_wall_hides_what_stands_behind_it():
    near, far = plane(0, 0, 1), plane(0.1, 0.1, 0.9)
    colors = np.concatenate([painted(near, RED), painted(far, BLUE)])
    image = draw_cloud(np.concatenate([near, far]), colors)
    assert share(image, RED) > 0.2
    assert share(image, BLUE) < 0.01


def test_small_masks_are_painted_over_large_ones():
    masks = [np.arange(10) < 2, np.arange(10) < 8, np.zeros(10, dtype=bool)]
    tinted = tint(np.zeros((10, 3), dtype=np.uint8), masks, first=1)
    assert np.argmax(tinted[0]) == np.argmax(COLORS[1])
    assert np.argmax(tinted[5]) == np.argmax(COLORS[2])
    assert not tinted[8:].any()


def test_near_walls_and_ceilings_of_rooms_are_left_out():
    floor = np.random.default_rng(0).random((20_000, 3)) * [4, 4, 0.01] - [2, 2, 0]
    wall, ceiling = plane(-3, 0.5, 2), floor + np.array([0, 0, 2.5])
    room = np.concatenate([floor, wall, ceiling])
    is_left_out = occluders(room)
    assert not is_left_out[: len(floor)].any()
    assert is_left_out[len(floor) :].mean() > 0.99
    assert not occluders(room * 0.3).any()  # of a table, say
    assert not occluders(room[:0]).any()


def test_what_a_phrase_names_is_drawn_even_on_a_near_wall():
    floor = np.random.default_rng(0).random((20_000, 3)) * [4, 4, 0.01] - [2, 2, 0]
    wall = plane(-3, 0.5, 2)
    xyz, mask = np.concatenate([floor, wall]), np.arange(len(floor) + len(wall)) >= len(floor)
    colors = painted(xyz, BLUE)
    width = draw_cloud(xyz, colors).shape[1]
    named, other = (
        draw_masks(xyz, colors, "a wall", ["wall"], [m])[:, width:] for m in (mask, ~mask)
    )
    is_marked = (named[..., 0] > 100) & (named[..., 2] < 150)
    assert is_marked.mean() > 0.1
    assert not np.array_equal(named, other)
