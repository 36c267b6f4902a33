"""Reads transforms.json (instant-ngp, nerfstudio) and transforms_*.json (NeRF-synthetic)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from refer3d.runs.errors import InputError
from refer3d.runs.records import as_kind, read_json, take
from refersplat.data.capture import Capture, PointCloud, Shot, read_point_cloud, rigid
from refersplat.data.images import ImageFolder, fold, read_size, several
from refersplat.data.lens import Lens, camera_model
from refersplat.data.names import without_suffix

# Under any of these names, files may give k1, k2, k3, p1 and p2.
_RADIAL = ("PINHOLE", "SIMPLE_PINHOLE", "OPENCV", "SIMPLE_RADIAL", "RADIAL", "PERSPECTIVE")
UNREAD = {
    "mask_path": "masked pixels train like others; cut them out as transparent pixels",
    "depth_file_path": "colours alone train",
    "time": "the scene is taken to stand still",
}
"""Fields of frames that have no effect here, and what that means."""
_FLIP = np.diag([1.0, -1.0, -1.0, 1.0])  # from OpenGL's axes (y up, looks along -z) to COLMAP's


def find_transforms(scene: Path) -> list[Path]:
    """The scene's files of poses; empty if there are none."""
    if (scene / "transforms.json").is_file():
        return [scene / "transforms.json"]
    train, test, val = (scene / f"transforms_{part}.json" for part in ("train", "test", "val"))
    if not train.is_file():
        return []
    held_out = next((path for path in (test, val) if path.is_file()), None)
    return [train, held_out] if held_out else [train]


def read_transforms(scene: Path, files: list[Path], images: ImageFolder) -> Capture:
    """Reads poses, lenses and the point cloud, if there is one.

    Args:
        scene: Folder that the file paths are relative to.
        files: One file, or NeRF-synthetic's training and test files.
        images: The scene's image folder, searched too.

    Raises:
        InputError: A file is not as the format says, or an image is missing.
    """
    capture = Capture([])
    finder = _Finder(scene, images)
    for index, path in enumerate(files):
        record = _given(read_json(path, dict))
        frames = take(record, "frames", list, str(path))
        if not frames:
            raise InputError(f"{path}: frames: expected at least one view, got none; add views")
        lists = _Lists(record, path)
        unread: Counter[str] = Counter()
        for number, frame in enumerate(frames):
            where = f"{path}: frames[{number}]"
            frame = _given(as_kind(frame, dict, where))
            name = take(frame, "file_path", str, where)
            name = PurePosixPath(name.replace("\\", "/")).as_posix()
            image = finder.find(name, where)
            pose, lens = _pose(frame, where), _lens({**record, **frame}, image, where)
            is_test = lists.is_test(name) or index > 0
            capture.shots.append(Shot(name, image, pose, lens, where, is_test))
            unread.update(key for key in UNREAD if key in frame)
        capture.warnings += lists.warnings()
        capture.warnings += [
            f"{path}: {key} of {count} frames is not used: {UNREAD[key]}"
            for key, count in unread.items()
        ]
        capture.points = capture.points or _points(scene, record, path)
    if capture.points:
        capture.warnings += capture.points.warnings
    return capture


def _given(record: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that have a value: null is as good as absent."""
    return {key: value for key, value in record.items() if value is not None}


class _Lists:
    """Nerfstudio's lists of images for training, testing and validation."""

    def __init__(self, record: Mapping[str, Any], path: Path) -> None:
        self.path = path
        self.unmatched: dict[str, str] = {}
        """Names of files not met yet, as written, by their folded names without suffix."""
        train, test, val = (
            self._read(record, f"{part}_filenames") for part in ("train", "test", "val")
        )
        self.train, self.test = train, test or val

    def _read(self, record: Mapping[str, Any], key: str) -> set[str]:
        names = take(record, key, list, str(self.path)) if record.get(key) else []
        where = f"{self.path}: {key}"
        names = {fold(without_suffix(as_kind(n, str, f"{where}[{i}]"))): n
                 for i, n in enumerate(names)}  # fmt: skip
        self.unmatched |= names
        return set(names)

    def is_test(self, name: str) -> bool:
        """Whether an image is listed for testing, or not among those listed for training."""
        name = fold(without_suffix(name))
        self.unmatched.pop(name, None)
        return name in self.test or (bool(self.train) and name not in self.train)

    def warnings(self) -> list[str]:
        """Names the listed files that no frame has."""
        if not self.unmatched:
            return []
        first = next(iter(self.unmatched.values()))
        return [f"{self.path}: {len(self.unmatched)} listed files are in no frame ({first} …)"]


class _Finder:
    """Finds images below the scene, as written, and below the image folder; a chosen one first."""

    def __init__(self, scene: Path, images: ImageFolder) -> None:
        self.scene = scene
        self.images = images
        self._folders: dict[Path, ImageFolder] = {}

    def find(self, name: str, where: str) -> Path:
        """Finds a frame's image: as its path says, or by the same name in the images' folder.

        With another images' folder that one comes first.

        Raises:
            InputError: Neither place has it, or one has several of that name.
        """
        is_absolute = name.startswith("/") or name[1:3] == ":/"
        below = name if is_absolute else name.partition("/")[2] or name  # without "images/"
        parent = (self.scene / name).parent
        folder = self._folders.setdefault(parent, ImageFolder(parent))
        places = [(folder, Path(name).name), (self.images, below)]
        if self.images.folder != self.scene / "images":
            places.reverse()
        for folder, file in places:
            matches = folder.matches(file)
            if len(matches) == 1:
                return matches[0]
            if matches:
                raise several(matches, f"{where}: file_path")
        raise InputError(
            f"{where}: file_path: expected the image {self.scene / name}, no such file, nor one of "
            f"that name in {self.images.folder}; copy the missing images, or name their folder "
            "with --data.images"
        )


def _pose(frame: Mapping[str, Any], where: str) -> np.ndarray:  # [4, 4], world to camera
    rows = take(frame, "transform_matrix", list, where)
    where = f"{where}: transform_matrix"
    sizes = {len(row) if isinstance(row, list) else 0 for row in rows}
    if len(rows) not in (3, 4) or sizes != {4}:
        raise InputError(
            f"{where}: expected 4 rows of 4 numbers, got {len(rows)} rows of "
            f"{' or '.join(map(str, sorted(sizes)))}; write camera-to-world row by row"
        )
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for r in rows for v in r):
        raise InputError(f"{where}: expected numbers, got {rows}; correct the file")
    camera_to_world = np.eye(4)
    camera_to_world[: len(rows)] = rows
    return np.linalg.inv(rigid(camera_to_world @ _FLIP, where))


def _lens(fields: Mapping[str, Any], image: Path, where: str) -> Lens:
    """The lens of a frame's fields, merged with the file's common ones."""

    def number(key: str, default: float = 0.0) -> float:
        return float(take(fields, key, float, where)) if key in fields else default

    name = fields.get("camera_model") or "OPENCV"
    name = "OPENCV_FISHEYE" if fields.get("is_fisheye") else name
    model = camera_model("FULL_OPENCV" if name in _RADIAL else name, where)
    for key in ("k4", "k5", "k6"):
        if name in _RADIAL and number(key):
            raise InputError(
                f"{where}: {key}: expected 0 or none with {name}, got {fields[key]}; "
                "undistort the photos"
            )
    if "w" in fields and "h" in fields:
        width, height = number("w"), number("h")
        if width != int(width) or height != int(height):
            raise InputError(
                f"{where}: w and h must be whole numbers of pixels, got {width} and {height}; "
                "write the images' size"
            )
    else:
        width, height = read_size(image)
    fx = number("fl_x") if "fl_x" in fields else _focal(number("camera_angle_x"), width)
    fy = number("fl_y") if "fl_y" in fields else _focal(number("camera_angle_y"), height)
    if not fx and "fl_x" not in fields and not ("fl_y" in fields and fy):
        raise InputError(
            f"{where}: expected a focal length, 'fl_x' or 'camera_angle_x' (radians, between 0 and "
            f"pi), got {fields.get('camera_angle_x', 'neither')}; add one to the file"
        )
    # One focal length serves both axes if the other is absent.
    fx = fx if fx or "fl_x" in fields else fy
    fy = fy if fy or "fl_y" in fields else fx
    center = {"cx": number("cx", width / 2), "cy": number("cy", height / 2)}
    coefficients = {name: number(name) for name in model.coefficients}
    values = {"fx": fx, "fy": fy, **center, **coefficients}
    return model.lens(values, int(width), int(height), where)


def _focal(angle: float, size: float) -> float:
    """Focal length in pixels of a field of view in radians; 0 if out of range."""
    return size / (2 * math.tan(angle / 2)) if 0 < angle < math.pi else 0.0


def _points(scene: Path, record: Mapping[str, Any], path: Path) -> PointCloud | None:
    """The point cloud of nerfstudio's ``ply_file_path``, or of a file beside the poses."""
    if record.get("ply_file_path"):
        file = scene / take(record, "ply_file_path", str, str(path))
        if not file.is_file():
            raise InputError(
                f"{path}: ply_file_path: {file}: no such file; copy it there or delete the key"
            )
        return read_point_cloud(file)
    for name in ("points3d.ply", "points3D.ply", "sparse_pc.ply"):
        if (scene / name).is_file():
            return read_point_cloud(scene / name)
    return None
