"""Scenes that float32 does not resolve, or that lie before the near plane."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from refer3d.runs.errors import InputError
from refersplat.cameras import Camera
from refersplat.data.units import camera_extent, check_units

PATH = Path("scene")


def cameras(scale=1.0, offset=0.0):
    """Four on a line, looking along z."""
    line = []
    for index in range(4):
        pose = torch.eye(4)
        pose[0, 3] = -(index * scale + offset)
        line.append(Camera(pose, 10.0, 10.0, 5.0, 5.0, 10, 10))
    return line


def points(scale=1.0, offset=0.0):
    return torch.tensor([[0.0, 0, 3], [1, 1, 4], [2, -1, 5]]) * scale + torch.tensor(
        [offset, 0.0, 0.0]
    )


def check(scale, offset=0.0):
    warnings = []
    some = cameras(scale, offset)
    extent = camera_extent(some, warnings)
    check_units(PATH, some, points(scale, offset), extent, warnings)
    return warnings


def test_usual_scenes_are_taken():
    assert check(1.0) == check(50.0) == check(1.0, offset=100.0) == []
    warnings = []
    check_units(PATH, cameras(), None, 1.0, warnings)  # without points nothing tells their depth
    assert not warnings


def test_scenes_far_from_the_origin_are_refused():
    with pytest.raises(InputError, match=r"^scene: .*5\.2e\+06 units .*; move"):
        check(1.0, offset=5.2e6)


def test_scenes_in_front_of_the_near_plane_are_refused():
    with pytest.raises(InputError, match=r"^scene: .*depth is 0\.16 units.*; scale"):
        check(0.04)
    (warning,) = check(0.08)
    assert "near plane lies at 0.2; scale" in warning


@pytest.mark.parametrize("scale", [1e-4, 1e-2])
def test_scenes_without_points_are_checked_too(scale):
    """By the point at which the cameras look, or by where random points would lie."""
    some = cameras(scale)
    with pytest.raises(InputError, match=r"^scene: .*random points.* units.*; scale"):
        check_units(PATH, some, None, camera_extent(some, []), [])
    for index, camera in enumerate(some):
        angle = 0.5 * index
        camera.world_to_camera[0, :3] = torch.tensor([math.cos(angle), 0, -math.sin(angle)])
        camera.world_to_camera[2, :3] = torch.tensor([math.sin(angle), 0, math.cos(angle)])
        camera.world_to_camera[:3, 3] = torch.tensor([0, 0, 3 * scale])
    with pytest.raises(InputError, match=r"^scene: .*looked at is 0\.\d+ units.*; scale"):
        check_units(PATH, some, None, camera_extent(some, []), [])


@pytest.mark.parametrize("value", [1e25, float("inf")])
def test_numbers_that_float32_cannot_hold_are_refused(value):
    """Readers check float64; 1e300 is finite there, and infinite in training."""
    far, some = cameras(), cameras()
    far[2].world_to_camera[0, 3] = value
    with pytest.raises(InputError, match=r"^scene: the cameras are .*; move"):
        check_units(PATH, far, points(), camera_extent(far, []), [])
    stray = points()
    stray[1, 2] = value
    with pytest.raises(InputError, match=r"^scene: 1 of 3 points .*; remove"):
        check_units(PATH, some, stray, camera_extent(some, []), [])


def test_a_stray_camera_is_named():
    some, warnings = cameras(), []
    some[3].world_to_camera[0, 3] = -5000
    camera_extent(some, warnings)
    assert "1 of 4 training cameras" in warnings[0]


def test_points_that_no_camera_sees_are_refused():
    some = cameras()
    extent = camera_extent(some, [])
    with pytest.raises(InputError, match=r"^scene: none of the 3 points .*; give points and poses"):
        check_units(PATH, some, points(offset=50.0), extent, [])
