"""Reads COLMAP models: cameras, images and points3D, as .bin or .txt."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np

from refer3d.runs.errors import InputError
from refersplat.data.capture import Capture, PointCloud, Shot, rigid
from refersplat.data.images import ImageFolder
from refersplat.data.lens import MODELS, Lens, camera_model


class _Camera(NamedTuple):
    key: int
    model: str
    width: int
    height: int
    parameters: list[float]


class _Image(NamedTuple):
    pose: list[float]  # quaternion as wxyz, translation
    camera: int
    name: str


class _Point(NamedTuple):
    position: list[float]
    color: list[int]


def find_model(scene: Path) -> Path | None:
    """The folder of the scene's COLMAP model, ``sparse/0`` or ``sparse``; None without one."""
    for folder in (scene / "sparse" / "0", scene / "sparse"):
        if any((folder / f"{stem}.{end}").is_file() for stem in ("cameras", "images")
               for end in ("bin", "txt")):  # fmt: skip
            return folder
    return None


def read_colmap(model: Path, images: ImageFolder) -> Capture:
    """Reads a model's cameras, poses and points.

    Raises:
        InputError: A file is missing, cut short or inconsistent.
    """
    is_binary = (model / "cameras.bin").is_file()
    paths = [model / f"{stem}.{'bin' if is_binary else 'txt'}" for stem in ("cameras", "images")]
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path}: no such file beside the others; copy the whole model")
    cameras = (_cameras_bin if is_binary else _cameras_txt)(paths[0])
    lenses = {camera.key: _lens(camera, f"{paths[0]}: camera {camera.key}") for camera in cameras}
    entries = (_images_bin if is_binary else _images_txt)(paths[1])
    if not entries:
        raise InputError(
            f"{paths[1]}: holds no images, expected at least one; run COLMAP's mapper until it "
            "registers some"
        )
    shots = [_shot(entry, lenses, images, f"{paths[1]}: image {entry.name}") for entry in entries]
    capture = Capture(shots, _read_points(model))
    if model.name == "0" and (others := sorted(p.name for p in model.parent.glob("[1-9]*"))):
        capture.warnings.append(
            f"{model.parent}: only model 0 is read; COLMAP left others too ({', '.join(others)})"
        )
    return capture


def _lens(camera: _Camera, where: str) -> Lens:
    model, values = camera_model(camera.model, where), camera.parameters
    if len(values) != len(model.names):
        raise InputError(
            f"{where}: {camera.model} has {len(model.names)} parameters, got {len(values)}; "
            "export the model again"
        )
    named = dict(zip(model.names, values, strict=True))
    return model.lens(named, camera.width, camera.height, where)


def _shot(image: _Image, lenses: dict[int, Lens], images: ImageFolder, where: str) -> Shot:
    if image.camera not in lenses:
        raise InputError(
            f"{where}: camera {image.camera} is not among the model's cameras "
            f"({', '.join(map(str, sorted(lenses)))}); export the model again"
        )
    quat = np.array(image.pose[:4])
    norm = float(np.linalg.norm(quat))
    if not abs(norm - 1) < 1e-2:
        raise InputError(
            f"{where}: the rotation must be a unit quaternion, got {image.pose[:4]} "
            f"(length {norm:.4g}); export the model again"
        )
    w, x, y, z = quat / norm
    pose = np.eye(4)
    pose[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    pose[:3, 3] = image.pose[4:]
    path = images.find(image.name, where)
    return Shot(image.name, path, rigid(pose, where), lenses[image.camera], where)


def _read_points(model: Path) -> PointCloud | None:
    files = {model / "points3D.bin": _points_bin, model / "points3D.txt": _points_txt}
    path = next((path for path in files if path.is_file()), None)
    if path is None:
        return None
    points = files[path](path)
    if not points:
        raise InputError(
            f"{path}: holds no points, expected at least one; run COLMAP's point_triangulator, "
            "or delete the file to start from random points"
        )
    positions = np.array([point.position for point in points], dtype=np.float64)
    if bad := int((~np.isfinite(positions).all(axis=1)).sum()):
        raise InputError(
            f"{path}: {bad} of {len(positions)} points are not finite; export the model again"
        )
    return PointCloud(positions, np.array([point.color for point in points], dtype=np.uint8))


class _Bytes:
    """A binary file, read from front to back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = path.read_bytes()
        self.offset = 0

    def take(self, layout: str, entry: str) -> tuple:
        start = self.offset
        self.skip(struct.calcsize("<" + layout), entry)
        return struct.unpack_from("<" + layout, self.data, start)

    def take_text(self, entry: str) -> str:
        start, end = self.offset, self.data.find(b"\0", self.offset)
        if end < 0:
            self.cut_short(entry)
        self.offset = end + 1
        return self.data[start:end].decode("utf-8", errors="replace")

    def skip(self, size: int, entry: str) -> None:
        if self.offset + size > len(self.data):
            self.cut_short(entry)
        self.offset += size

    def cut_short(self, entry: str) -> NoReturn:
        raise InputError(
            f"{self.path}: is cut short: {len(self.data)} bytes, but {entry} needs more; "
            "copy the file again"
        )

    def end(self) -> None:
        if self.offset != len(self.data):
            raise InputError(
                f"{self.path}: has {len(self.data) - self.offset} bytes after its last entry; "
                "it is damaged or not COLMAP's: export the model again"
            )


def _cameras_bin(path: Path) -> list[_Camera]:
    data = _Bytes(path)
    (count,) = data.take("Q", "the number of cameras")
    names = {model.number: name for name, model in MODELS.items()}
    cameras = []
    for index in range(count):
        entry = f"camera {index + 1} of {count}"
        key, number, width, height = data.take("iiQQ", entry)
        name = names.get(number, f"number {number}")
        model = camera_model(name, f"{path}: camera {key}")
        values = data.take(f"{len(model.names)}d", entry)
        cameras.append(_Camera(key, name, width, height, list(values)))
    data.end()
    return cameras


def _images_bin(path: Path) -> list[_Image]:
    data = _Bytes(path)
    (count,) = data.take("Q", "the number of images")
    images = []
    for index in range(count):
        entry = f"image {index + 1} of {count}"
        _, *pose, camera = data.take("i7di", entry)
        images.append(_Image(pose, camera, data.take_text(entry)))
        (num_points,) = data.take("Q", entry)
        data.skip(24 * num_points, f"{entry} with its {num_points} points")  # unused
    data.end()
    return images


def _points_bin(path: Path) -> list[_Point]:
    data = _Bytes(path)
    (count,) = data.take("Q", "the number of points")
    points = []
    for index in range(count):
        entry = f"point {index + 1} of {count}"
        _, *position, red, green, blue, _, track = data.take("Q3d3BdQ", entry)
        points.append(_Point(position, [red, green, blue]))
        data.skip(8 * track, entry)
    data.end()
    return points


def _read_text(path: Path, layout: str, parse: Callable, has_points: bool = False) -> list:
    """Parses the lines of a file, each followed by a line of image points with ``has_points``."""
    entries, stated = [], 0
    with path.open(encoding="utf-8", errors="replace") as file:
        lines = enumerate(map(str.strip, file), start=1)
        for number, line in lines:
            if line.startswith("#"):
                header = re.search(r"Number of \w+: (\d+)", line)
                stated = int(header[1]) if header else stated
                continue
            if not line:
                continue
            try:
                entries.append(parse(line))
            except (ValueError, IndexError):
                raise InputError(
                    f"{path}, line {number}: expected {layout}, got {line[:80]!r}; "
                    "the file is cut short or damaged: copy it again"
                ) from None
            if has_points:
                number, points = next(lines, (number + 1, ""))
                if len(points.split()) % 3:
                    raise InputError(
                        f"{path}, line {number}: expected X Y POINT3D_ID per point, got "
                        f"{len(points.split())} numbers; the file is cut short: copy it again"
                    )
    if len(entries) < stated:
        raise InputError(
            f"{path}: is cut short or was edited: expected the {stated} entries of its comment, "
            f"got {len(entries)}; copy the file again or correct the comment"
        )
    return entries


def _cameras_txt(path: Path) -> list[_Camera]:
    def parse(line: str) -> _Camera:
        key, model, width, height, *values = line.split()
        return _Camera(int(key), model, int(width), int(height), [float(v) for v in values])

    return _read_text(path, "CAMERA_ID MODEL WIDTH HEIGHT PARAMS", parse)


def _images_txt(path: Path) -> list[_Image]:
    def parse(line: str) -> _Image:
        _, qw, qx, qy, qz, tx, ty, tz, camera, name = line.split(maxsplit=9)
        return _Image([float(v) for v in (qw, qx, qy, qz, tx, ty, tz)], int(camera), name)

    layout = "IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME"
    return _read_text(path, layout, parse, has_points=True)


def _points_txt(path: Path) -> list[_Point]:
    def parse(line: str) -> _Point:
        fields = line.split()
        color = [int(value) for value in fields[4:7]]
        if len(fields) < 8 or len(fields) % 2 or not all(0 <= value <= 255 for value in color):
            raise ValueError
        return _Point([float(value) for value in fields[1:4]], color)

    return _read_text(path, "POINT3D_ID X Y Z R G B ERROR TRACK", parse)
