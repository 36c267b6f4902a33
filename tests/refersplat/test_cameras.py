"""The pinhole camera's frames."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from refersplat.cameras import Camera, look_at_point


def turned(angle: float, position: tuple[float, float, float]) -> Camera:
    """A camera at ``position``, turned about the world's y axis."""
    sin, cos = math.sin(angle), math.cos(angle)
    pose = torch.eye(4)
    pose[:3, :3] = torch.tensor([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
    pose[:3, 3] = -pose[:3, :3] @ torch.tensor(position)
    return Camera(pose, fx=50, fy=48, cx=20.5, cy=14.5, width=40, height=30)


@given(angle=st.floats(-4, 4), x=st.floats(-5, 5), z=st.floats(-5, 5))
def test_position_is_where_the_camera_frame_starts(angle, x, z):
    camera = turned(angle, (x, 1.0, z))
    # float32, distances up to 7: measured worst 1e-6.
    assert_close(camera.position, torch.tensor([x, 1.0, z]), rtol=0, atol=5e-6)


@given(width=st.integers(1, 400), height=st.integers(1, 400))
def test_resizing_keeps_what_is_seen(width, height):
    camera = turned(0.3, (1.0, 0.0, -2.0))
    resized = camera.resized(width, height)
    assert resized.width / resized.fx == pytest.approx(camera.width / camera.fx)
    assert resized.height / resized.fy == pytest.approx(camera.height / camera.fy)
    assert resized.cx / width == pytest.approx(camera.cx / camera.width)
    back = resized.resized(camera.width, camera.height)
    for key in ("fx", "fy", "cx", "cy"):
        assert getattr(back, key) == pytest.approx(getattr(camera, key))


def looking(position: tuple[float, float, float], at: tuple[float, float, float]) -> Camera:
    """A camera whose axis goes through a point; its roll is any."""
    forward = torch.tensor(at) - torch.tensor(position)
    forward = forward / forward.norm()
    right = torch.linalg.cross(torch.tensor([0.3, 0.9, 0.1]), forward)
    right = right / right.norm()
    pose = torch.eye(4)
    pose[:3, :3] = torch.stack([right, torch.linalg.cross(forward, right), forward])
    pose[:3, 3] = -pose[:3, :3] @ torch.tensor(position)
    return Camera(pose, fx=50, fy=50, cx=20, cy=15, width=40, height=30)


def test_the_point_that_all_cameras_look_at_is_found():
    places = [(3.0, 0.0, 0.0), (0.0, 1.0, -3.0), (-2.0, -1.0, 2.0)]
    cameras = [looking(place, (0.5, -0.2, 1.0)) for place in places]
    point = look_at_point(cameras, reach=10)
    assert_close(point, torch.tensor([0.5, -0.2, 1.0]), rtol=0, atol=1e-4)
    assert look_at_point(cameras, reach=2) is None
    outwards = [looking(place, tuple(2 * x for x in place)) for place in places]
    assert look_at_point(outwards, reach=10) is None
    assert look_at_point(cameras[:1], reach=10) is None


def test_the_point_nearest_to_skew_axes_lies_between_them():
    cameras = [
        looking((-5.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
        looking((1.0, 1.0, 5.0), (1.0, 1.0, 0.0)),
    ]
    assert_close(look_at_point(cameras, 10), torch.tensor([1.0, 0.5, 0.0]), rtol=0, atol=1e-4)
