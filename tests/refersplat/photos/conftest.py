"""Photos of a textured corner, drawn by homographies of three walls."""

import cv2
import numpy as np
import pytest
from PIL import Image

SIZE = 200, 150
FOCAL = 190.0


def texture(rng, size=512):
    """Blobs of many sizes, which SIFT finds."""
    picture = np.zeros((size, size, 3))
    for scale in (8, 20, 50):
        noise = rng.normal(size=(size, size, 3))
        blurred = cv2.GaussianBlur(noise, (0, 0), scale)
        picture += blurred / blurred.std()
    return np.clip(128 + 32 * picture, 0, 255).astype(np.uint8)


WALLS = ((0, 1, 2), (1, 2, 0), (2, 0, 1))
"""Axes: the wall lies in the first two, at 0 of the third."""


def draw_corner(position, target, textures):
    """A photo of three walls of side 4 that meet in the origin; and its pose [4, 4]."""
    forward = target - position
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, -rotation @ position
    camera = np.array([[FOCAL, 0, SIZE[0] / 2 - 0.5], [0, FOCAL, SIZE[1] / 2 - 0.5], [0, 0, 1]])
    photo = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    for (u, v, _), pixels in zip(WALLS, textures, strict=True):
        to_world = np.zeros((3, 3))
        to_world[u, 0] = to_world[v, 1] = 4.0 / len(pixels)
        homography = camera @ np.column_stack(
            [rotation @ to_world[:, 0], rotation @ to_world[:, 1], pose[:3, 3]]
        )
        wall = cv2.warpPerspective(pixels, homography, SIZE, flags=cv2.INTER_AREA)
        inside = cv2.warpPerspective(np.ones(pixels.shape[:2], np.uint8), homography, SIZE)
        photo[inside > 0] = wall[inside > 0]
    return photo, pose


@pytest.fixture(scope="session")
def corner():
    """Seven photos, RGB, and their poses."""
    rng = np.random.default_rng(0)
    textures = [texture(rng) for _ in WALLS]
    angles = np.linspace(0.5, 1.0, 7)
    places = [np.array([7 * np.cos(a), 7 * np.sin(a), 4 + np.sin(5 * a)]) for a in angles]
    target = np.array([1.3, 1.3, 1.2])
    return [draw_corner(place, target, textures) for place in places]


@pytest.fixture(scope="session")
def folder(corner, tmp_path_factory):
    """The photos as files, with spaces in their names."""
    path = tmp_path_factory.mktemp("corner") / "photos"
    path.mkdir()
    for index, (photo, _) in enumerate(corner):
        Image.fromarray(photo).save(path / f"my photo {index:02}.jpg", quality=95)
    return path
