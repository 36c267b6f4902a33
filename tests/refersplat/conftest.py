"""A scene of photos, small enough to train in seconds."""

import json
import math

import numpy as np
import pytest
from PIL import Image

NUM_VIEWS = 9
WIDTH, HEIGHT = 32, 24
FOCAL = 30.0
DISTANCE = 3.0


def photo(angle):
    """A ball in the dark whose colour changes around it, seen from ``angle`` radians."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    inside = np.hypot(columns - WIDTH / 2, rows - HEIGHT / 2) < 7
    ball = np.array([220, 60 + 80 * math.sin(angle), 40])
    return np.where(inside[..., None], ball, 0).astype(np.uint8)


@pytest.fixture
def photo_scene(tmp_path):
    """A folder with a transforms.json and nine photos around a ball at the origin."""
    folder = tmp_path / "scene"
    (folder / "images").mkdir(parents=True)
    frames = []
    for i in range(NUM_VIEWS):
        angle = 2 * math.pi * i / NUM_VIEWS
        sin, cos = math.sin(angle), math.cos(angle)
        pose = [
            [cos, 0, sin, DISTANCE * sin],
            [0, 1, 0, 0],
            [-sin, 0, cos, DISTANCE * cos],
            [0, 0, 0, 1],
        ]
        Image.fromarray(photo(angle)).save(folder / "images" / f"{i:03}.png")
        frames.append({"file_path": f"images/{i:03}.png", "transform_matrix": pose})
    lens = {"fl_x": FOCAL, "fl_y": FOCAL, "cx": WIDTH / 2, "cy": HEIGHT / 2}
    size = {"w": WIDTH, "h": HEIGHT}
    (folder / "transforms.json").write_text(json.dumps({**lens, **size, "frames": frames}))
    return folder
