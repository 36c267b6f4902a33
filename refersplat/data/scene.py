"""A scene: its views with cameras, images, and the objects that sentences name in them."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from refer3d.runs.errors import InputError
from refer3d.runs.records import as_kind, read_json, take
from refersplat.cameras import Camera
from refersplat.config import DataConfig
from refersplat.data import ref_lerf
from refersplat.data.capture import Capture, PointCloud, Shot
from refersplat.data.colmap import find_model, read_colmap
from refersplat.data.images import (
    ImageFolder,
    PixelCache,
    decode,
    decode_mask,
    in_threads,
    read_size,
)
from refersplat.data.lens import Lens, Warp
from refersplat.data.splits import ViewNames, choose_test_views, view_names
from refersplat.data.transforms import find_transforms, read_transforms
from refersplat.data.units import camera_extent, check_units

_DEFAULT_WIDTH = 1600
_LARGEST_DIVISOR = 8
_SMALLEST_SIDE = 8
_AHEAD = 4
_NUM_DECODERS = 2


@dataclass(frozen=True, eq=False)
class ReferredObject:
    """One object in one view: what is said about it, and where it is seen."""

    category: str | None
    sentences: tuple[str, ...]
    mask_path: Path
    amodal_path: Path | None
    _warp: Warp = field(repr=False)
    _cache: PixelCache = field(repr=False)

    def mask(self) -> Tensor:  # [H, W] bool
        """The pixels where the object is seen, at the camera's size; may be empty."""
        return self._read(self.mask_path)

    def amodal_mask(self) -> Tensor | None:  # [H, W] bool
        """The pixels that the object would cover if nothing stood before it, where known."""
        return None if self.amodal_path is None else self._read(self.amodal_path)

    def _read(self, path: Path) -> Tensor:
        warp = self._warp
        # One bit a pixel: a scene has many more masks than images.
        bits = self._cache.get(
            (path, warp), lambda: np.packbits(warp.mask(decode_mask(path)), axis=1)
        )
        return torch.from_numpy(np.unpackbits(bits, axis=1, count=warp.width).astype(bool))


@dataclass(frozen=True, eq=False)
class View:
    """One photo with its camera."""

    name: str
    """The file's stem, or its path with underscores where stems are not unique."""
    camera: Camera
    """Of the image that :meth:`image` returns: resized and without distortion."""
    path: Path
    """The photo's file."""
    objects: tuple[ReferredObject, ...]
    background: float
    """Gray behind transparent pixels, 0 black to 1 white."""
    _warp: Warp = field(repr=False)
    _cache: PixelCache = field(repr=False)

    @property
    def lens(self) -> Lens:
        """Of the photo as its file holds it, distortion included."""
        return self._warp.lens

    def image(self) -> Tensor:  # [3, H, W]
        """The photo in 0..1, on the background; decoded at first use, then cached."""
        pixels = torch.from_numpy(self._pixels()).permute(2, 0, 1)
        image = pixels[:3].to(torch.float32, memory_format=torch.contiguous_format) / 255
        if pixels.shape[0] == 4 and self.background:
            image += self.background * (1 - pixels[3] / 255)
        return image

    def alpha(self) -> Tensor | None:  # [H, W]
        """Opacity of the photo's pixels in 0..1; None where it has no transparent ones."""
        pixels = self._pixels()
        return torch.from_numpy(pixels[..., 3] / np.float32(255)) if pixels.shape[2] == 4 else None

    def _pixels(self) -> np.ndarray:  # [H, W, 3 or 4] uint8, colours multiplied by alpha
        return self._cache.get((self.path, self._warp), lambda: self._warp.image(decode(self.path)))


@dataclass(frozen=True, eq=False)
class Scene:
    """Everything that training and evaluation know about a place."""

    path: Path
    views: list[View]
    """All views, sorted by name."""
    train: list[View]
    test: list[View]
    """Views that training does not see; empty without ``--eval``."""
    points: tuple[Tensor, Tensor] | None
    """Positions [P, 3] float32 and colours [P, 3] in 0..1 from structure from motion, if any."""
    extent: float
    """1.1 × the largest distance of a training camera from their mean (Inria's cameras_extent)."""
    warnings: list[str]
    split: str
    """In words, who chose the test views."""


def load_ahead(
    views: Iterable[View], device: torch.device | str = "cpu"
) -> Iterator[tuple[View, Tensor]]:
    """Views in their order, each with its image on ``device``, decoded ahead of its use by threads.

    On the way to a GPU an image lies in pinned memory, from where nobody waits for it.
    """
    device = torch.device(device)

    def load(view: View) -> Tensor:
        image = view.image()
        return image.pin_memory() if device.type == "cuda" else image

    with ThreadPoolExecutor(_NUM_DECODERS) as pool:
        waiting = deque()
        for view in views:
            waiting.append((view, pool.submit(load, view)))
            if len(waiting) > _AHEAD:
                first, image = waiting.popleft()
                yield first, image.result().to(device, non_blocking=True)
        for view, image in waiting:
            yield view, image.result().to(device, non_blocking=True)


def load_scene(config: DataConfig) -> Scene:
    """Reads poses, sentences and the headers of all images and masks; decodes nothing yet.

    Raises:
        InputError: If anything that training will need is missing or cannot be.
    """
    path = Path(config.scene)
    if not config.scene or not path.is_dir():
        raise InputError(
            f"{config.scene or '-s'}: no such folder, expected a scene with images/ and sparse/0/ "
            "or transforms.json; see data/README.md"
        )
    _check_options(config)
    capture = _read_capture(path, ImageFolder(path / config.images))
    shots = capture.shots
    names = view_names([shot.name for shot in shots])
    known = ViewNames(names, [shot.name for shot in shots])
    warnings = capture.warnings
    files = ref_lerf.find_json(path, known, warnings)
    test, split = _split(config, path, known, capture, files, warnings)
    entries = _read_entries(config, path, files, test, warnings)
    sizes = in_threads(read_size, [shot.path for shot in shots])
    cache = PixelCache(int(config.image_cache_gb * 2**30))
    views = []
    for name, shot, size in zip(names, shots, sizes, strict=True):
        warp = _warp(shot, size, config.resolution, warnings)
        objects = tuple(
            ReferredObject(e.category, e.sentences, e.mask_path, e.amodal_path, warp, cache)
            for e in entries.get(name, ())
        )
        background = float(config.white_background)
        camera = _camera(shot, warp)
        views.append(View(name, camera, shot.path, objects, background, warp, cache))
    allowed = {
        name: {size, (shot.lens.width, shot.lens.height)}
        for name, shot, size in zip(names, shots, sizes, strict=True)
    }
    _check_masks(entries, allowed)
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
    )


def _check_options(config: DataConfig) -> None:
    if config.resolution != -1 and config.resolution < 1:
        raise InputError(
            f"-r (--data.resolution): expected -1, a divisor of 1 to {_LARGEST_DIVISOR} or a width "
            f"in pixels, got {config.resolution}; leave it out to keep the images' size"
        )
    if not config.image_cache_gb >= 0:
        raise InputError(
            f"--data.image_cache_gb: expected 0 or more, got {config.image_cache_gb}; 2 is usual"
        )


def _read_capture(scene: Path, images: ImageFolder) -> Capture:
    if model := find_model(scene):
        capture = read_colmap(model, images)
    elif files := find_transforms(scene):
        capture = read_transforms(scene, files, images)
    else:
        raise InputError(
            f"{scene}: holds no poses, expected sparse/0/cameras.bin and images.bin (or .txt) or "
            "transforms.json; run COLMAP on the photos"
        )
    return capture


def _split(
    config: DataConfig,
    path: Path,
    names: ViewNames,
    capture: Capture,
    files: dict[str, ref_lerf.JsonFile],
    warnings: list[str],
) -> tuple[set[str], str]:
    if not config.eval:
        if config.test_views:
            warnings.append("--data.test_views has no effect without --eval: all views train")
        return set(), "all views train, without --eval"
    flagged = {name for name, shot in zip(names.names, capture.shots, strict=True) if shot.is_test}
    in_folder = {name for name, file in files.items() if file.is_test}
    listed = []
    if (path / "meta.json").is_file():
        meta = read_json(path / "meta.json", dict)
        if "test_views" in meta:
            where = f"{path / 'meta.json'}"
            listed = take(meta, "test_views", list, where)
            for index, value in enumerate(listed):
                if not isinstance(value, str):
                    as_kind(value, int, f"{where}: test_views[{index}]")
    return choose_test_views(
        names,
        scene_name=path.resolve().name,
        asked=config.test_views,
        by_folder=in_folder or flagged,
        listed=listed,
        where=str(path),
    )


def _read_entries(
    config: DataConfig,
    path: Path,
    files: dict[str, ref_lerf.JsonFile],
    test: set[str],
    warnings: list[str],
) -> dict[str, list[ref_lerf.Entry]]:
    """What the json files name, by view."""
    masks = ref_lerf.MaskFolders(path, config.masks)
    entries = {
        name: ref_lerf.read_objects(
            file, name, masks, is_test=name in test or file.is_test, warnings=warnings
        )
        for name, file in files.items()
    }
    uses = Counter(entry.mask_path for of_view in entries.values() for entry in of_view)
    warnings += [f"{mask}: is the mask of {num} views" for mask, num in uses.items() if num > 1]
    if masks.num_missing:
        warnings.append(
            f"{path / config.masks}: no mask of {masks.num_missing} objects in training views, "
            "left out there"
        )
    return entries


def _warp(shot: Shot, size: tuple[int, int], resolution: int, warnings: list[str]) -> Warp:
    """The way from a photo's file to the image that training sees."""
    lens, (width, height) = shot.lens, size
    if size != (lens.width, lens.height):
        # Copies made smaller keep the camera's shape up to the rounding of their sides.
        if abs(height - lens.height * width / lens.width) > 1 and (
            abs(width - lens.width * height / lens.height) > 1
        ):
            raise InputError(
                f"{shot.path}: is {width}x{height} pixels, but its camera ({shot.where}) is "
                f"{lens.width}x{lens.height}; use the images that the poses were computed from, or "
                "copies scaled as a whole; a turn that EXIF asks for is not applied: save the "
                "image turned"
            )
        warnings.append(
            f"{shot.path.parent}: images of {width}x{height} for cameras of "
            f"{lens.width}x{lens.height}; the cameras are scaled"
        )
        lens = lens.resized(width, height)
    if lens.is_distorted:
        lens.undistorted(shot.where)  # reports what cannot be undistorted by its file
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
    lens: Lens = warp.target
    pose = torch.from_numpy(shot.world_to_camera).to(torch.float32)
    return Camera(pose, lens.fx, lens.fy, lens.cx, lens.cy, lens.width, lens.height)


def _check_masks(
    entries: dict[str, list[ref_lerf.Entry]], allowed: dict[str, set[tuple[int, int]]]
) -> None:
    """Raises InputError for a mask that cannot be read or is not of its image's size."""

    def check(item: tuple[str, ref_lerf.Entry, Path]) -> None:
        view, entry, path = item
        size = read_size(path)
        if size not in allowed[view]:
            expected = " or ".join(f"{w}x{h}" for w, h in sorted(allowed[view], reverse=True))
            raise InputError(
                f"{path}: is {size[0]}x{size[1]} pixels, but view {view} is {expected} "
                f"({entry.where}); draw the mask at the image's size"
            )

    in_threads(
        check,
        [
            (view, entry, path)
            for view, of_view in entries.items()
            for entry in of_view
            for path in (entry.mask_path, entry.amodal_path)
            if path is not None
        ],
    )


def _points(points: PointCloud | None) -> tuple[Tensor, Tensor] | None:
    if points is None:
        return None
    positions = torch.from_numpy(points.positions).to(torch.float32)
    return positions, torch.from_numpy(points.colors).to(torch.float32) / 255
