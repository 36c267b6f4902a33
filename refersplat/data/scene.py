"""A scene: its views, read from poses, photos, sentences and masks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from refer3d.runs.errors import InputError
from refer3d.runs.options import validate
from refersplat.cameras import Camera, resized
from refersplat.config import DataConfig
from refersplat.data.annotations import Dataset
from refersplat.data.capture import Capture, PointCloud, Shot
from refersplat.data.colmap import find_model, read_colmap
from refersplat.data.images import ImageFolder, PixelCache, in_threads, read_size
from refersplat.data.lens import Warp
from refersplat.data.names import ViewNames, view_names
from refersplat.data.referring import check_masks, choose_dataset
from refersplat.data.splits import choose_test_views
from refersplat.data.transforms import find_transforms, read_transforms
from refersplat.data.units import camera_extent, check_units
from refersplat.data.views import ReferredObject, View

_DEFAULT_WIDTH = 1600
_LARGEST_DIVISOR = 8
_SMALLEST_SIDE = 8


@dataclass(frozen=True, eq=False)
class Scene:
    """The views of a scene, its split and its points."""

    path: Path
    views: list[View]
    """All views, sorted by name."""
    train: list[View]
    test: list[View]
    """Views held out from training; empty without ``--eval``."""
    points: tuple[Tensor, Tensor] | None
    """Positions [P, 3] float32 and colours [P, 3] in 0..1 from structure from motion, if any."""
    extent: float
    """1.1 × the largest distance of a training camera from their mean (Inria's cameras_extent)."""
    warnings: list[str]
    split: str
    """Source of the test views, in words."""
    dataset: Dataset
    """Format of the sentences."""


def load_scene(config: DataConfig) -> Scene:
    """Reads poses, sentences and the headers of all images and masks; decodes nothing yet.

    Raises:
        InputError: A file or option that training will need is missing or wrong.
    """
    path = Path(config.scene)
    if not config.scene or not path.is_dir():
        raise InputError(
            f"{config.scene or '-s'}: no such folder, expected a scene with images/ and sparse/0/ "
            "or transforms.json; name it, or its new place, with -s (see data/README.md)"
        )
    validate(config, "--data.")
    capture = _read_capture(path, ImageFolder(path / config.images))
    shots, warnings = capture.shots, capture.warnings
    files = [shot.name for shot in shots]
    names = ViewNames(view_names(files), files)
    flagged = {name for name, shot in zip(names.names, shots, strict=True) if shot.is_test}
    dataset = choose_dataset(path, config.dataset)
    test, split = choose_test_views(config, dataset, names, flagged, warnings)
    annotations = dataset.read(path, names, test=test, masks=config.masks, warnings=warnings)

    sizes = in_threads(read_size, [shot.path for shot in shots])
    cache = PixelCache(int(config.image_cache_gb * 2**30))
    background = float(config.white_background)
    views, allowed = [], {}
    for name, shot, size in zip(names.names, shots, sizes, strict=True):
        warp = _warp(shot, size, config.resolution, warnings)
        objects = tuple(ReferredObject(a, warp, cache) for a in annotations.get(name, ()))
        camera = _camera(shot, warp)
        views.append(View(name, camera, shot.path, objects, background, warp, cache))
        allowed[name] = {size, (shot.lens.width, shot.lens.height)}
    check_masks(annotations, allowed)
    views.sort(key=lambda view: view.name)
    train = [view for view in views if view.name not in test]
    points, cameras = _points(capture.points), [view.camera for view in train]
    extent = camera_extent(cameras, warnings)
    check_units(path, cameras, points and points[0], extent, warnings)
    return Scene(
        path=path,
        views=views,
        train=train,
        test=[view for view in views if view.name in test],
        points=points,
        extent=extent,
        warnings=list(dict.fromkeys(warnings)),
        split=split,
        dataset=dataset,
    )


def _read_capture(scene: Path, images: ImageFolder) -> Capture:
    model, files = find_model(scene), find_transforms(scene)
    if not model and not files:
        raise InputError(
            f"{scene}: holds no poses, expected sparse/0/cameras.bin and images.bin (or .txt) or "
            "transforms.json; run COLMAP on the photos"
        )
    capture = read_colmap(model, images) if model else read_transforms(scene, files, images)
    unread = [path for path in sorted(scene.glob("transforms*.json")) if model or path not in files]
    if unread:
        names, source = (", ".join(p.name for p in paths) for paths in (unread, files))
        capture.warnings.append(f"{scene}: poses are read from {model or source}, not {names}")
    return capture


def _warp(shot: Shot, size: tuple[int, int], resolution: int, warnings: list[str]) -> Warp:
    """The warp from a photo's file to the training image."""
    lens, (width, height) = shot.lens, size
    if size != (lens.width, lens.height):
        # Copies made smaller keep the camera's shape up to the rounding of their sides.
        if abs(height - lens.height * width / lens.width) > 1 and (
            abs(width - lens.width * height / lens.height) > 1
        ):
            raise InputError(
                f"{shot.path}: is {width}x{height} pixels, but its camera ({shot.where}) is "
                f"{lens.width}x{lens.height}; use the images that the poses were computed from, or "
                "copies scaled as a whole, and save photos with an EXIF rotation rotated"
            )
        warnings.append(
            f"{shot.path.parent}: images of {width}x{height} for cameras of "
            f"{lens.width}x{lens.height}; the cameras are scaled"
        )
        lens = resized(lens, width, height)
    lens.undistorted(shot.where)  # an error here names the camera's file
    return Warp(lens, *_output_size(width, height, resolution, shot.path, warnings))


def _output_size(
    width: int, height: int, resolution: int, path: Path, warnings: list[str]
) -> tuple[int, int]:
    if resolution == -1:
        factor = max(width / _DEFAULT_WIDTH, 1.0)
    elif resolution <= _LARGEST_DIVISOR:
        factor = float(resolution)
    else:
        factor = width / resolution
        if factor < 1:
            warnings.append(
                f"-r {resolution}: the images are {width} pixels wide, they are not enlarged"
            )
            factor = 1.0
    size = round(width / factor), round(height / factor)
    if min(size) < _SMALLEST_SIDE:
        raise InputError(
            f"{path}: would be {size[0]}x{size[1]} pixels with -r {resolution}, expected at least "
            f"{_SMALLEST_SIDE} a side; choose a smaller divisor or a larger width"
        )
    return size


def _camera(shot: Shot, warp: Warp) -> Camera:
    lens = warp.target
    pose = torch.from_numpy(shot.world_to_camera).to(torch.float32)
    return Camera(pose, lens.fx, lens.fy, lens.cx, lens.cy, lens.width, lens.height)


def _points(points: PointCloud | None) -> tuple[Tensor, Tensor] | None:
    if points is None:
        return None
    positions = torch.from_numpy(points.positions).to(torch.float32)
    return positions, torch.from_numpy(points.colors).to(torch.float32) / 255
