"""Scenes that float32 does not resolve, or that lie before the near plane."""

from __future__ import annotations

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
