"""Captions, overlays, and the flight of a video."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from refersplat.cameras import Camera
from refersplat.inference.orbit import circle, draw_scene, write_video
from refersplat.inference.overlay import (
    MARK,
    add_caption,
    draw_heat,
    draw_overlay,
    enlargement,
    font,
    to_pixels,
    wrap,
)
from refersplat.splats.gaussians import Gaussians


@given(st.text(max_size=200), st.integers(60, 600))
def test_captions_lose_nothing_and_fit(text, width):
    lines = wrap(text, width, font(15))
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(font(15).getlength(line) <= width for line in lines if len(line) > 1)


def test_short_captions_stay_on_one_line():
    assert wrap("the cup", 300, font(15)) == ["the cup"]
    assert wrap("", 300, font(15)) == [""]


def test_the_caption_stands_below_the_picture():
    picture = np.full((100, 480, 3), 77, dtype=np.uint8)
    one = np.asarray(add_caption(picture, "the cup"))
    many = np.asarray(add_caption(picture, "the cup " * 30))
    assert one.shape[0] < many.shape[0]
    assert (one[:100] == 77).all()
    assert (one[100:] < 100).any()


def test_pixels_keep_their_colours():
    image = torch.tensor([0.0, 0.5, 2.0])[:, None, None].expand(3, 2, 2)
    assert to_pixels(image)[0, 0].tolist() == [0, 128, 255]


def test_heat_goes_from_dark_to_bright():
    heat = draw_heat(torch.tensor([[0.0, 0.5, 1.0]])).sum(axis=2)[0]
    assert heat[0] < heat[1] < heat[2]


def test_the_marked_object_is_brighter_than_what_is_around_it():
    mask = torch.zeros(30, 40, dtype=torch.bool)
    mask[10:20, 10:30] = True
    picture = draw_overlay(torch.full((3, 30, 40), 0.5), mask)
    factor = enlargement(40)
    assert picture.shape == (30 * factor, 40 * factor, 3)
    inside, outside = picture[15 * factor, 20 * factor], picture[2 * factor, 2 * factor]
    assert inside.astype(int).sum() > 1.5 * outside.astype(int).sum()
    assert (picture == MARK).all(axis=2).any()


def cameras(centre, count=7):
    """Cameras on a ring of radius 3, one above ``centre``, which all look at; up is -y."""
    ring = []
    for angle in torch.linspace(0, 2, count).tolist():
        offset = torch.tensor([3 * np.sin(angle), -1, -3 * np.cos(angle)], dtype=torch.float32)
        forward = -offset / offset.norm()
        right = torch.linalg.cross(torch.tensor([0.0, 1.0, 0.0]), forward)
        right = right / right.norm()
        pose = torch.eye(4)
        pose[:3, :3] = torch.stack([right, torch.linalg.cross(forward, right), forward])
        pose[:3, 3] = -pose[:3, :3] @ (centre + offset)
        ring.append(Camera(pose, 50.0, 50.0, 20.0, 15.0, 40, 30))
    return ring


def test_the_flight_circles_the_point_that_the_cameras_look_at():
    centre = torch.tensor([0.5, -0.2, 1.0])
    flight = circle(cameras(centre), 8, torch.zeros(5, 3))
    positions = torch.stack([camera.position for camera in flight])
    distances = (positions - centre).norm(dim=1)
    assert_close(distances, distances[:1].expand(8), rtol=1e-4, atol=1e-4)
    assert_close(positions.mean(dim=0)[[0, 2]], centre[[0, 2]], rtol=0, atol=0.2)
    for camera in flight:
        rotation, translation = camera.world_to_camera[:3, :3], camera.world_to_camera[:3, 3]
        assert_close(rotation @ rotation.T, torch.eye(3), rtol=0, atol=1e-5)
        assert torch.linalg.det(rotation) == pytest.approx(1, abs=1e-5)
        x, y, z = (rotation @ centre + translation).tolist()
        assert max(abs(x), abs(y)) < 1e-4
        assert z > 0
        assert rotation[1, 1] > 0.5  # the picture is not upside down


@pytest.mark.parametrize("count", [1, 6])
def test_parallel_cameras_fly_around_the_gaussians(count):
    means = torch.tensor([[0.2, 0.0, 5.0]]).repeat(9, 1)
    parallel = []
    for x in range(count):
        pose = torch.eye(4)
        pose[0, 3] = -0.1 * x
        parallel.append(Camera(pose, 50.0, 50.0, 20.0, 15.0, 40, 30))
    for camera in circle(parallel, 3, means):
        x, y, z = (camera.world_to_camera[:3, :3] @ means[0]) + camera.world_to_camera[:3, 3]
        assert max(abs(x), abs(y)) < 1e-4
        assert 4 < z < 6


def test_an_incomplete_video_is_deleted(monkeypatch, tmp_path):
    monkeypatch.setattr("refersplat.inference.orbit._count_frames", lambda path: 2)
    gaussians = Gaussians(
        *(torch.zeros(1, 3), torch.zeros(1, 3), torch.ones(1, 4), torch.zeros(1)),
        torch.zeros(1, 16, 3),
    )
    pictures = draw_scene(gaussians, cameras(torch.zeros(3), 3), torch.zeros(3))
    with pytest.raises(OSError, match="disk full") as raised:
        write_video(tmp_path / "a.mp4", pictures, 3)
    assert raised.value.filename == str(tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []
