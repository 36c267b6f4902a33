"""Reads COLMAP models: cameras, images and points3D, as .bin or .txt."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import numpy as np

from refer3d.runs.errors import InputError
from refersplat.data.capture import Capture, PointCloud, Shot, rigid
from refersplat.data.images import ImageFolder
from refersplat.data.lens import MODELS, Lens, camera_model


@dataclass(frozen=True)
class _Image:
    name: str
    quat: tuple[float, ...]  # wxyz
    translation: tuple[float, ...]
    camera: int
    where: str


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
    ending = "bin" if (model / "cameras.bin").is_file() else "txt"
    for stem in ("cameras", "images"):
        if not (model / f"{stem}.{ending}").is_file():
            raise InputError(
                f"{model / stem}.{ending}: no such file beside the others; copy the whole model"
            )
    is_binary = ending == "bin"
    lenses = (_cameras_bin if is_binary else _cameras_txt)(model / f"cameras.{ending}")
    entries = (_images_bin if is_binary else _images_txt)(model / f"images.{ending}")
    if not entries:
        raise InputError(
            f"{model / 'images'}.{ending}: holds no images, expected at least one; run COLMAP's "
            "mapper until it registers some"
        )
    shots = [_shot(entry, lenses, images) for entry in entries]
    capture = Capture(shots, _read_points(model))
    if model.name == "0" and (others := sorted(p.name for p in model.parent.glob("[1-9]*"))):
        capture.warnings.append(
            f"{model.parent}: only model 0 is read; COLMAP left others too ({', '.join(others)})"
        )
    return capture


def _shot(image: _Image, lenses: dict[int, Lens], images: ImageFolder) -> Shot:
    if image.camera not in lenses:
        raise InputError(
            f"{image.where}: camera {image.camera} is not among the model's cameras "
            f"({', '.join(map(str, sorted(lenses)))}); export the model again"
        )
    norm = float(np.linalg.norm(image.quat))
    if not abs(norm - 1) < 1e-2:
        raise InputError(
            f"{image.where}: the rotation must be a unit quaternion, got {image.quat} "
            f"(length {norm:.4g}); export the model again"
        )
    w, x, y, z = np.array(image.quat) / norm
    pose = np.eye(4)
    pose[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    pose[:3, 3] = image.translation
    return Shot(
        name=image.name,
        path=images.find(image.name, image.where),
        world_to_camera=rigid(pose, image.where),
        lens=lenses[image.camera],
        where=image.where,
    )


def _lens(name: str, width: int, height: int, values: list[float], where: str) -> Lens:
    model = camera_model(name, where)
    if len(values) != len(model.names):
        raise InputError(
            f"{where}: {name} has {len(model.names)} parameters, got {len(values)}; "
            "export the model again"
        )
    return model.lens(dict(zip(model.names, values, strict=True)), width, height, where)


class _Bytes:
    """A binary file read from front to back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = path.read_bytes()
        self.offset = 0

    def take(self, layout: str, what: str) -> tuple:
        size = struct.calcsize("<" + layout)
        if self.offset + size > len(self.data):
            self.cut_short(what)
        values = struct.unpack_from("<" + layout, self.data, self.offset)
        self.offset += size
        return values

    def take_text(self, what: str) -> str:
        end = self.data.find(b"\0", self.offset)
        if end < 0:
            self.cut_short(what)
        text = self.data[self.offset : end].decode("utf-8", errors="replace")
        self.offset = end + 1
        return text

    def skip(self, size: int, what: str) -> None:
        if self.offset + size > len(self.data):
            self.cut_short(what)
        self.offset += size

    def cut_short(self, what: str) -> None:
        raise InputError(
            f"{self.path}: is cut short: {len(self.data)} bytes, but {what} needs more; "
            "copy the file again"
        )

    def end(self) -> None:
        if self.offset != len(self.data):
            raise InputError(
                f"{self.path}: has {len(self.data) - self.offset} bytes after its last entry; "
                "it is damaged or not COLMAP's: export the model again"
            )


def _cameras_bin(path: Path) -> dict[int, Lens]:
    data = _Bytes(path)
    (count,) = data.take("Q", "the number of cameras")
    names = {model.number: name for name, model in MODELS.items()}
    lenses = {}
    for index in range(count):
        what = f"camera {index + 1} of {count}"
        key, number, width, height = data.take("iiQQ", what)
        where = f"{path}: camera {key}"
        name = names.get(number, f"number {number}")
        values = data.take(f"{len(camera_model(name, where).names)}d", what)
        lenses[key] = _lens(name, width, height, list(values), where)
    data.end()
    return lenses


def _images_bin(path: Path) -> list[_Image]:
    data = _Bytes(path)
    (count,) = data.take("Q", "the number of images")
    images = []
    for index in range(count):
        what = f"image {index + 1} of {count}"
        _, *pose, camera = data.take("i7di", what)
        name = data.take_text(what)
        (num_points,) = data.take("Q", what)
        data.skip(24 * num_points, f"{what} with its {num_points} points")  # x, y, point: unused
        images.append(
            _Image(name, tuple(pose[:4]), tuple(pose[4:]), camera, f"{path}: image {name}")
        )
    data.end()
    return images


def _points_bin(path: Path) -> tuple[np.ndarray, np.ndarray]:
    data = _Bytes(path)
    (count,) = data.take("Q", "the number of points")
    if 43 * count > len(data.data):
        data.cut_short(f"a list of {count} points")
    positions, colors = np.empty((count, 3)), np.empty((count, 3), dtype=np.uint8)
    for index in range(count):
        _, *position, red, green, blue, _, track = data.take("Q3d3BdQ", f"point {index + 1}")
        positions[index] = position
        colors[index] = red, green, blue
        data.skip(8 * track, f"point {index + 1} of {count}")
    data.end()
    return positions, colors


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines, stripped, without comments."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if not line.startswith("#"):
                yield number, line.strip()


def _check_count(path: Path, got: int) -> None:
    """Compares the number of entries with COLMAP's comment at the top of the file."""
    with path.open(encoding="utf-8", errors="replace") as file:
        header = "".join(takewhile(lambda line: line.startswith("#"), file))
    stated = re.search(r"Number of \w+: (\d+)", header)
    if stated and got < int(stated[1]):
        raise InputError(
            f"{path}: is cut short or was edited: expected the {stated[1]} entries of its comment, "
            f"got {got}; copy the file again or correct the comment"
        )


def _parse_line(path: Path, number: int, line: str, layout: str, parse: Callable) -> tuple:
    try:
        return parse(line)
    except (ValueError, IndexError):
        raise InputError(
            f"{path}, line {number}: expected {layout}, got {line[:80]!r}; "
            "the file is cut short or damaged: copy it again"
        ) from None


def _cameras_txt(path: Path) -> dict[int, Lens]:
    def parse(line: str) -> tuple:
        key, model, width, height, *params = line.split()
        return int(key), model, int(width), int(height), [float(p) for p in params]

    lenses = {}
    for number, line in _lines(path):
        if line:
            layout = "CAMERA_ID MODEL WIDTH HEIGHT PARAMS"
            key, *camera = _parse_line(path, number, line, layout, parse)
            lenses[key] = _lens(*camera, where=f"{path}: camera {key}")
    _check_count(path, len(lenses))
    return lenses


def _images_txt(path: Path) -> list[_Image]:
    def parse(line: str) -> tuple:
        _, *pose, camera, name = line.split(maxsplit=9)
        if len(pose) != 7:
            raise ValueError
        return [float(value) for value in pose], int(camera), name

    images, lines = [], _lines(path)
    for number, line in lines:
        if not line:
            continue
        layout = "IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME"
        pose, camera, name = _parse_line(path, number, line, layout, parse)
        images.append(
            _Image(name, tuple(pose[:4]), tuple(pose[4:]), camera, f"{path}: image {name}")
        )
        number, points = next(lines, (number + 1, ""))  # the line of points, which may be empty
        if len(points.split()) % 3:
            raise InputError(
                f"{path}, line {number}: expected X Y POINT3D_ID per point of {name}, got "
                f"{len(points.split())} numbers; the file is cut short: copy it again"
            )
    _check_count(path, len(images))
    return images


def _points_txt(path: Path) -> tuple[np.ndarray, np.ndarray]:
    def parse(line: str) -> tuple:
        fields = line.split()
        if len(fields) < 8 or len(fields) % 2:
            raise ValueError
        color = [int(value) for value in fields[4:7]]
        if not all(0 <= value <= 255 for value in color):
            raise ValueError
        return [float(value) for value in fields[1:4]], color

    positions, colors = [], []
    for number, line in _lines(path):
        if line:
            layout = "POINT3D_ID X Y Z R G B ERROR TRACK"
            position, color = _parse_line(path, number, line, layout, parse)
            positions.append(position)
            colors.append(color)
    _check_count(path, len(positions))
    return np.array(positions, dtype=np.float64), np.array(colors, dtype=np.uint8)


def _read_points(model: Path) -> PointCloud | None:
    for path, read in (
        (model / "points3D.bin", _points_bin),
        (model / "points3D.txt", _points_txt),
    ):
        if not path.is_file():
            continue
        positions, colors = read(path)
        if len(positions) == 0:
            raise InputError(
                f"{path}: holds no points, expected at least one; run COLMAP's point_triangulator, "
                "or delete the file to start from random points"
            )
        if bad := int((~np.isfinite(positions).all(axis=1)).sum()):
            raise InputError(
                f"{path}: {bad} of {len(positions)} points are not finite; export the model again"
            )
        return PointCloud(positions, colors)
    return None
