"""A scene of three balls, and a short run on it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

NUM_VIEWS, WIDTH, HEIGHT, FOCAL, DISTANCE = 12, 64, 48, 60.0, 3.0
BALLS = {
    "apple": ((-0.7, 0.0, 0.0), (200, 40, 40), ("the red apple", "a round fruit to the left")),
    "melon": ((0.1, 0.0, 0.3), (60, 170, 60), ("the green melon", "a big ball in the middle")),
    "plum": ((0.8, 0.0, -0.2), (70, 60, 190), ("the blue plum", "a sour thing on the right")),
}
RADIUS = 0.32


def pose(index: int) -> tuple[np.ndarray, np.ndarray]:
    """World to camera, [3, 3] and [3], of cameras on a ring that look at the origin."""
    angle = 2 * math.pi * index / NUM_VIEWS
    sin, cos = math.sin(angle), math.cos(angle)
    return np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]]), np.array([0, 0, DISTANCE])


def look(index: int) -> tuple[np.ndarray, np.ndarray]:
    """The first ball that each ray hits, -1 for none [H, W]; all that it hits [balls, H, W]."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    rays = [(columns - WIDTH / 2) / FOCAL, (rows - HEIGHT / 2) / FOCAL, np.ones_like(rows)]
    rays = np.stack(rays, axis=-1) / np.linalg.norm(rays, axis=0)[..., None]
    rotation, translation = pose(index)
    distances = []
    for centre, _, _ in BALLS.values():
        local = rotation @ np.array(centre) + translation
        along = rays @ local
        inside = RADIUS**2 - (local @ local - along**2)
        distances.append(np.where(inside > 0, along - np.sqrt(np.maximum(inside, 0)), np.inf))
    hits = np.isfinite(distances)
    return np.where(hits.any(axis=0), np.argmin(distances, axis=0), -1), hits


def write_balls(path: Path) -> None:
    """A scene in which the balls hide each other in some views, with exact masks."""
    for folder in ("images", "json", "gt_mask", "gt_mask_amodal", "sparse/0"):
        (path / folder).mkdir(parents=True)
    colors = np.array([*(color for _, color, _ in BALLS.values()), (10, 10, 10)], dtype=np.uint8)
    images = []
    for index in range(NUM_VIEWS):
        first, hits = look(index)
        stem, objects = f"frame_{index + 1:05d}", []
        Image.fromarray(colors[first]).save(path / "images" / f"{stem}.png")
        for number, (category, (_, _, sentences)) in enumerate(BALLS.items()):
            file = f"{category}_{stem}.png"
            for folder, mask in (("gt_mask", first == number), ("gt_mask_amodal", hits[number])):
                Image.fromarray(mask.astype(np.uint8) * 255).save(path / folder / file)
            objects.append({"category": category, "segmentation": file, "sentence": sentences})
        (path / "json" / f"{stem}.json").write_text(json.dumps({"object": objects}))
        half = math.pi * index / NUM_VIEWS
        images.append(
            f"{index + 1} {math.cos(half)} 0 {math.sin(half)} 0 0 0 {DISTANCE} 1 {stem}.png\n"
        )
    random, points = np.random.default_rng(0), []
    for centre, color, _ in BALLS.values():
        ways = random.normal(size=(60, 3))
        for way in ways * RADIUS / np.linalg.norm(ways, axis=1, keepdims=True) + centre:
            points.append(f"{len(points) + 1} {' '.join(map(str, [*way, *color]))} 0.1")
    lens = f"1 PINHOLE {WIDTH} {HEIGHT} {FOCAL} {FOCAL} {WIDTH / 2} {HEIGHT / 2}"
    model = path / "sparse" / "0"
    (model / "cameras.txt").write_text(lens + "\n")
    (model / "images.txt").write_text("\n".join(images) + "\n")
    (model / "points3D.txt").write_text("\n".join(points) + "\n")


@contextmanager
def threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that share so little work only wait for each other."""
    with threads(1):
        yield


@pytest.fixture(scope="session")
def balls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a scene of three balls; not to be written to."""
    path = tmp_path_factory.mktemp("balls") / "scene"
    write_balls(path)
    return path


@pytest.fixture(scope="session")
def trained(balls: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run on the balls; not to be written to."""
    from refersplat.train import main

    out = tmp_path_factory.mktemp("trained") / "out"
    with threads(1):
        main([*("-s", str(balls), "-m", str(out), "--eval", "--text.encoder", "hash"),
              *("--iterations", "120", "--train.iterations", "150"),
              *("--train.network_lr", "3e-3", "--train.hold_out_every", "5")])  # fmt: skip
    return out
