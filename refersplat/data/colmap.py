"""Reads COLMAP models: cameras, images and points3D, as .bin or .txt."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np

from refer3d.runs.errors import InputError
from refer3d.runs.files import decode_text, describe_content
from refersplat.data.capture import Capture, PointCloud, Shot, read_point_cloud, rigid
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
    endings = [
        ending
        for ending in ("bin", "txt")
        if all((model / f"{stem}.{ending}").is_file() for stem in ("cameras", "images"))
    ]
    if not endings:
        has_cameras = any(model.glob("cameras.*"))
        ending = next(model.glob("cameras.*" if has_cameras else "images.*")).suffix
        missing = model / f"{'images' if has_cameras else 'cameras'}{ending}"
        raise InputError(f"{missing}: no such file beside the others; copy the whole model")
    is_binary = endings[0] == "bin"
    paths = [model / f"{stem}.{endings[0]}" for stem in ("cameras", "images")]
    cameras = (_cameras_bin if is_binary else _cameras_txt)(paths[0])
    lenses = {camera.key: _lens(camera, f"{paths[0]}: camera {camera.key}") for camera in cameras}
    entries = (_images_bin if is_binary else _images_txt)(paths[1])
    if not entries:
        raise InputError(
            f"{paths[1]}: holds no images, expected at least one; run COLMAP's mapper until it "
            "registers some"
        )
    shots = [_shot(entry, lenses, images, f"{paths[1]}: image {entry.name}") for entry in entries]
    capture = Capture(shots)
    if len(endings) > 1:
        capture.warnings.append(_not_read(paths[1], paths[1].with_suffix(".txt")))
    capture.points = _read_points(model, capture.warnings)
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


def _not_read(path: Path, other: Path) -> str:
    newer = ", though newer" if other.stat().st_mtime > path.stat().st_mtime else ""
    return f"{path}: is read; {other.name} beside it is not{newer}; delete the one that is outdated"


def _read_points(model: Path, warnings: list[str]) -> PointCloud | None:
    """Reads the points, a .ply first, as Inria's code does."""
    files = {model / "points3D.bin": _points_bin, model / "points3D.txt": _points_txt}
    cloud = model / "points3D.ply"
    paths = [path for path in (cloud, *files) if path.is_file()]
    if not paths:
        return None
    path = paths[0]
    warnings += [_not_read(path, other) for other in paths[1:]]
    if path == cloud:
        points = read_point_cloud(path)
        warnings += points.warnings
        return points
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
        return decode_text(self.data[start:end])

    def skip(self, size: int, entry: str) -> None:
        if self.offset + size > len(self.data):
            self.cut_short(entry)
        self.offset += size

    def cut_short(self, entry: str) -> NoReturn:
        kind = describe_content(self.data) or "cut short or not COLMAP's"
        raise InputError(
            f"{self.path}: is {kind}: {len(self.data)} bytes, but {entry} needs more; "
            "copy it again, or export the model again"
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
    """Parses the lines of a file; with ``has_points`` a line of image points may follow each."""
    entries, stated, is_points = [], 0, False
    text = decode_text(path.read_bytes()).replace("\r\n", "\n").replace("\r", "\n")
    for number, line in enumerate(map(str.strip, text.split("\n")), start=1):
        if line.startswith("#"):
            header = re.search(r"Number of \w+: (\d+)", line)
            stated = int(header[1]) if header else stated
            continue
        if is_points and _is_points(line):
            is_points = False
            continue
        if not line:
            continue
        try:
            entries.append(parse(line))
        except (ValueError, IndexError):
            expected = f"X Y POINT3D_ID per point, or {layout}" if is_points else layout
            remedy = "it is cut short or was edited: copy the file or export the model again"
            if re.search(r"\d,\d", line):
                remedy = "write numbers with a point, not a comma: export it with LC_ALL=C"
            raise InputError(
                f"{path}, line {number}: expected {expected}, got {line[:80]!r}; {remedy}"
            ) from None
        is_points = has_points
    if len(entries) < stated:
        raise InputError(
            f"{path}: is cut short or was edited: expected the {stated} entries of its comment, "
            f"got {len(entries)}; copy the file again or correct the comment"
        )
    return entries


def _is_points(line: str) -> bool:
    """Whether a line holds points of an image, which some programs leave out, or nothing."""
    fields = line.split()
    try:
        return len(fields) % 3 == 0 and all(map(math.isfinite, map(float, fields)))
    except ValueError:
        return False


def _cameras_txt(path: Path) -> list[_Camera]:
    def parse(line: str) -> _Camera:
        key, model, width, height, *values = line.split()
        return _Camera(int(key), model, int(width), int(height), [float(v) for v in values])

    return _read_text(path, "CAMERA_ID MODEL WIDTH HEIGHT PARAMS", parse)


def _images_txt(path: Path) -> list[_Image]:
    def parse(line: str) -> _Image:
        key, qw, qx, qy, qz, tx, ty, tz, camera, name = line.split(maxsplit=9)
        int(key)  # not a cut line of points
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
