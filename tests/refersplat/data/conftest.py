"""A small scene, written as COLMAP and Ref-LERF would, for tests of everything that reads one."""

from __future__ import annotations

import json
import math
import re
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refer3d.runs.errors import InputError
from refersplat.config import DataConfig
from refersplat.data import load_scene
from refersplat.data.lens import MODELS


@dataclass
class SmallScene:
    """Cameras on an arc around some points, each with a photo, two objects and their masks."""

    path: Path
    num_views: int = 4
    width: int = 40
    height: int = 30
    model: str = "PINHOLE"
    params: tuple[float, ...] = (50.0, 48.0, 20.5, 14.5)
    names: list[str] = field(default_factory=list)
    poses: list[np.ndarray] = field(default_factory=list)
    """World to camera, [4, 4] float64."""
    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    colors: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), dtype=np.uint8))

    def __post_init__(self) -> None:
        random = np.random.default_rng(0)
        self.names = self.names or [f"frame_{i + 1:05d}.png" for i in range(self.num_views)]
        self.poses = [_look_at_origin(0.4 * i) for i in range(self.num_views)]
        self.points = random.uniform(-0.7, 0.7, (12, 3))
        self.colors = random.integers(0, 256, (12, 3), dtype=np.uint8)

    def project(self, index: int) -> np.ndarray:  # [P, 2]
        """Pixels of the points in a photo; no reader uses them, so distortion is left out."""
        pose = self.poses[index]
        local = self.points @ pose[:3, :3].T + pose[:3, 3]
        return local[:, :2] / local[:, 2:] * self.params[0] + (self.width / 2, self.height / 2)

    def write(self, binary: bool = True) -> SmallScene:
        self.write_images()
        self.write_sentences()
        return self.write_colmap(binary=binary)

    def write_images(self) -> SmallScene:
        for index, name in enumerate(self.names):
            pixels = np.empty((self.height, self.width, 3), dtype=np.uint8)
            pixels[..., 0] = np.linspace(0, 255, self.width)
            pixels[..., 1] = np.linspace(0, 255, self.height)[:, None]
            pixels[..., 2] = (40 * index) % 256
            path = self.path / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
        return self

    def write_sentences(self) -> SmallScene:
        """Left and right half of every photo are a cup and a bowl."""
        for folder in ("json", "gt_mask"):
            (self.path / folder).mkdir(parents=True, exist_ok=True)
        for name in self.names:
            stem = Path(name).stem
            objects = []
            for category, left, right in (("cup", 0, 0.5), ("bowl", 0.5, 1)):
                mask = np.zeros((self.height, self.width), dtype=np.uint8)
                mask[:, int(left * self.width) : int(right * self.width)] = 255
                file = f"{category}_{stem}.png"
                Image.fromarray(mask).save(self.path / "gt_mask" / file)
                sentences = [f"The {category} on the table.", f"A thing: the {category}."]
                objects.append({"category": category, "segmentation": file, "sentence": sentences})
            self.write_json(stem, {"object": objects})
        return self

    def write_json(self, stem: str, content: object, folder: str = "json") -> None:
        path = self.path / folder / f"{stem}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))

    def read_json(self, stem: str) -> dict:
        return json.loads((self.path / "json" / f"{stem}.json").read_text())

    def write_colmap(self, binary: bool = True, folder: str = "sparse/0") -> SmallScene:
        model = self.path / folder
        shutil.rmtree(self.path / "sparse", ignore_errors=True)
        model.mkdir(parents=True)
        (self._write_binary if binary else self._write_text)(model)
        return self

    def _write_binary(self, model: Path) -> None:
        camera = struct.pack("<iiQQ", 7, MODELS[self.model].number, self.width, self.height)
        camera += struct.pack(f"<{len(self.params)}d", *self.params)
        (model / "cameras.bin").write_bytes(struct.pack("<Q", 1) + camera)
        images = struct.pack("<Q", len(self.names))
        for index, name in enumerate(self.names):
            images += struct.pack("<i7di", index + 1, *self._pose_numbers(index), 7)
            images += name.encode() + b"\0" + struct.pack("<Q", len(self.points))
            for number, (x, y) in enumerate(self.project(index)):
                images += struct.pack("<ddq", x, y, number)
        (model / "images.bin").write_bytes(images)
        points = struct.pack("<Q", len(self.points))
        for number, (point, color) in enumerate(zip(self.points, self.colors, strict=True)):
            points += struct.pack("<Q3d3Bd", number, *point, *color, 0.5)
            points += struct.pack("<Qiiii", 2, 1, number, 2, number)
        (model / "points3D.bin").write_bytes(points)

    def _write_text(self, model: Path) -> None:
        def text(values: np.ndarray | tuple) -> str:
            return " ".join(repr(float(value)) for value in values)

        lines = ["# Camera list", "# Number of cameras: 1"]
        lines.append(f"7 {self.model} {self.width} {self.height} {text(self.params)}")
        (model / "cameras.txt").write_text("\n".join(lines) + "\n")
        lines = ["# Image list", f"# Number of images: {len(self.names)}, mean observations: 12"]
        for index, name in enumerate(self.names):
            lines.append(f"{index + 1} {text(self._pose_numbers(index))} 7 {name}")
            lines.append(
                " ".join(f"{text(p)} {number}" for number, p in enumerate(self.project(index)))
            )
        (model / "images.txt").write_text("\n".join(lines) + "\n")
        lines = ["# 3D point list", f"# Number of points: {len(self.points)}, mean track: 2"]
        for number, (point, color) in enumerate(zip(self.points, self.colors, strict=True)):
            red, green, blue = map(int, color)
            lines.append(f"{number} {text(point)} {red} {green} {blue} 0.5 1 {number} 2 {number}")
        (model / "points3D.txt").write_text("\n".join(lines) + "\n")

    def _pose_numbers(self, index: int) -> tuple[float, ...]:
        pose = self.poses[index]
        return (*_quaternion(pose[:3, :3]), *pose[:3, 3])

    def remove(self, path: str) -> None:
        target = self.path / path
        shutil.rmtree(target) if target.is_dir() else target.unlink()

    def cut(self, path: str, keep: int) -> None:
        """Keeps a file's first bytes; all but the last ones where negative."""
        data = (self.path / path).read_bytes()
        (self.path / path).write_bytes(data[:keep])

    def append(self, path: str, data: bytes) -> None:
        (self.path / path).write_bytes((self.path / path).read_bytes() + data)

    def patch(self, path: str, offset: int, layout: str, *values: float) -> None:
        """Overwrites numbers of a binary file."""
        data = bytearray((self.path / path).read_bytes())
        struct.pack_into("<" + layout, data, offset, *values)
        (self.path / path).write_bytes(data)

    def replace_text(self, path: str, old: str, new: str) -> None:
        """Replaces what a regular expression finds first."""
        content = (self.path / path).read_text()
        changed = re.sub(old, new, content, count=1, flags=re.MULTILINE)
        assert changed != content
        (self.path / path).write_text(changed)

    def write_text(self, path: str, content: str) -> None:
        (self.path / path).write_text(content)

    def write_image(self, path: str, size: tuple[int, int]) -> None:
        Image.new("RGB", size).save(self.path / path)

    def transforms(self, **fields: object) -> dict:
        """The scene as transforms.json; the lens as one camera_angle_x without any."""
        frames = [
            {
                "file_path": f"images/{name}",
                "transform_matrix": (
                    np.linalg.inv(pose) @ np.diag([1.0, -1.0, -1.0, 1.0])
                ).tolist(),
            }
            for name, pose in zip(self.names, self.poses, strict=True)
        ]
        angle = 2 * math.atan(self.width / 2 / self.params[0])
        return {**(fields or {"camera_angle_x": angle}), "frames": frames}

    def write_transforms(self, record: object, name: str = "transforms.json") -> SmallScene:
        shutil.rmtree(self.path / "sparse", ignore_errors=True)
        (self.path / name).write_text(json.dumps(record))
        return self


def _look_at_origin(angle: float) -> np.ndarray:  # [4, 4]
    position = np.array([3 * math.sin(angle), -0.5, -3 * math.cos(angle)])
    forward = -position / np.linalg.norm(position)
    right = np.cross([0.0, 1.0, 0.0], forward)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    pose = np.eye(4)
    pose[:3, :3] = rotation
    pose[:3, 3] = -rotation @ position
    return pose


def _quaternion(rotation: np.ndarray) -> tuple[float, float, float, float]:
    """wxyz, of a rotation by less than half a turn."""
    w = math.sqrt(max(1 + np.trace(rotation), 0)) / 2
    skew = rotation - rotation.T
    return w, skew[2, 1] / (4 * w), skew[0, 2] / (4 * w), skew[1, 0] / (4 * w)


@pytest.fixture
def make_scene(tmp_path: Path) -> Callable[..., SmallScene]:
    """Makes a scene in a folder of its own; nothing is written before ``write``."""

    def make(folder: str = "scene", **options: object) -> SmallScene:
        return SmallScene(tmp_path / folder, **options)

    return make


@pytest.fixture
def small_scene(make_scene: Callable[..., SmallScene]) -> SmallScene:
    """A scene with COLMAP's binary model, photos, sentences and masks, all written."""
    return make_scene().write()


@pytest.fixture
def refusal() -> Callable[..., str]:
    """Loads a scene that must be refused; returns the message, of one line."""

    def load(small: SmallScene, **options: object) -> str:
        with pytest.raises(InputError) as caught:
            load_scene(DataConfig(scene=str(small.path), **options))
        message = str(caught.value)
        assert "\n" not in message
        return message

    return load
