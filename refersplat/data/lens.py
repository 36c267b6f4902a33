"""Camera models: intrinsics with distortion, and the warp from a photo to a pinhole image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np

from refer3d.runs.errors import InputError
from refersplat.cameras import resized

_EDGE_SAMPLES = 65  # points per image side that must lie inside the photo
_GRID_SAMPLES = 13
_ZOOMS = (0.25, 16.0)  # focal length after undistortion over the one before
_BISECTIONS = 26
_LARGEST = 1e6
_NEWTON_STEPS = 8
_CONVERGED = 0.1  # pixels
_COMPLEX_STEP = 1e-20j
_ROWS = 32  # of an undistortion map at a time, so that the arrays between stay in the cache

Rays = tuple[np.ndarray, np.ndarray]
"""X/Z and Y/Z in the camera frame, of one shape."""
Distortion = Callable[..., Rays]
"""Distorts rays ``x, y`` by coefficients given by name. Derivatives come from complex rays: it must
be an analytic function."""


def radial_tangential(
    x: np.ndarray, y: np.ndarray, k1: float = 0, k2: float = 0, p1: float = 0, p2: float = 0,
    k3: float = 0, k4: float = 0, k5: float = 0, k6: float = 0,
) -> Rays:  # fmt: skip
    """OpenCV's distortion; rational with k4 to k6."""
    r = x * x + y * y
    radial = (1 + r * (k1 + r * (k2 + r * k3))) / (1 + r * (k4 + r * (k5 + r * k6)))
    column = x * radial + 2 * p1 * x * y + p2 * (r + 2 * x * x)
    return column, y * radial + p1 * (r + 2 * y * y) + 2 * p2 * x * y


def fisheye(
    x: np.ndarray, y: np.ndarray, k1: float = 0, k2: float = 0, k3: float = 0, k4: float = 0
) -> Rays:
    """OpenCV's fisheye: the radius is a polynomial of the angle to the optical axis."""
    radius = np.sqrt(x * x + y * y + 1e-30)  # not 0 at the centre
    angle = np.arctan(radius)
    t = angle * angle
    scale = angle * (1 + t * (k1 + t * (k2 + t * (k3 + t * k4)))) / radius
    return x * scale, y * scale


@dataclass(frozen=True)
class CameraModel:
    """A camera model of COLMAP's, which nerfstudio names alike."""

    number: int
    """COLMAP's ``model_id``."""
    parameters: str
    """Names in COLMAP's order: focal lengths (``f`` serves both axes), principal point and the
    coefficients of ``distort``."""
    distort: Distortion = radial_tangential

    @property
    def names(self) -> list[str]:
        """Names of the parameters, in COLMAP's order."""
        return self.parameters.split()

    @property
    def coefficients(self) -> list[str]:
        """Names of the distortion's coefficients."""
        return [name for name in self.names if name not in ("f", "fx", "fy", "cx", "cy")]

    def lens(self, values: Mapping[str, float], width: int, height: int, where: str) -> Lens:
        """Makes a lens from parameters by name; absent coefficients are 0.

        Raises:
            InputError: A focal length, size or coefficient makes no sense; ``where`` names it.
        """
        names = sorted(self.coefficients)
        coefficients = tuple((name, values[name]) for name in names if values.get(name))
        is_pinhole = self.distort is radial_tangential and not coefficients
        fx, fy = (values[name] if name in values else values["f"] for name in ("fx", "fy"))
        lens = Lens(
            *(fx, fy, values["cx"], values["cy"], width, height),
            distort=None if is_pinhole else self.distort,
            coefficients=coefficients,
        )
        _check(lens, where)
        return lens


MODELS = {
    "SIMPLE_PINHOLE": CameraModel(0, "f cx cy"),
    "PINHOLE": CameraModel(1, "fx fy cx cy"),
    "SIMPLE_RADIAL": CameraModel(2, "f cx cy k1"),
    "RADIAL": CameraModel(3, "f cx cy k1 k2"),
    "OPENCV": CameraModel(4, "fx fy cx cy k1 k2 p1 p2"),
    "OPENCV_FISHEYE": CameraModel(5, "fx fy cx cy k1 k2 k3 k4", fisheye),
    "FULL_OPENCV": CameraModel(6, "fx fy cx cy k1 k2 p1 p2 k3 k4 k5 k6"),
    "SIMPLE_RADIAL_FISHEYE": CameraModel(8, "f cx cy k1", fisheye),
    "RADIAL_FISHEYE": CameraModel(9, "f cx cy k1 k2", fisheye),
}
"""The camera models. To add one, add a line here, and a function above if its distortion is new:
readers and undistortion take everything from this table."""


def camera_model(name: str, where: str) -> CameraModel:
    """The model of that name.

    Raises:
        InputError: There is none.
    """
    if name not in MODELS:
        raise InputError(
            f"{where}: camera model {name} is not supported (expected one of {', '.join(MODELS)}); "
            "undistort the photos, for example with `colmap image_undistorter`"
        )
    return MODELS[name]


@dataclass(frozen=True)
class Lens:
    """Intrinsics in pixels, pixel centres at .5 (COLMAP's convention)."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    distort: Distortion | None = None
    """None for a pinhole camera."""
    coefficients: tuple[tuple[str, float], ...] = ()
    """Arguments of ``distort``: those that are not 0, sorted by name."""

    @property
    def is_distorted(self) -> bool:
        """Whether a photo must be warped to fit a pinhole camera."""
        return self.distort is not None

    def project(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Column and row, in pixels, of rays (X/Z and Y/Z in the camera frame) of one shape."""
        if self.distort is not None:
            x, y = self.distort(x, y, **dict(self.coefficients))
        return x * self.fx + self.cx, y * self.fy + self.cy

    def undistorted(self, where: str = "camera") -> Lens:
        """The pinhole lens whose image this lens's photo fills without black borders.

        Size and principal point stay; both focal lengths are scaled alike, by the smallest factor
        for which every pixel of the pinhole image lies in the photo.

        Raises:
            InputError: The distortion leaves no such image.
        """
        if not self.is_distorted:
            return self
        zoom = _zoom(self)
        if zoom is None:
            listed = ", ".join(f"{name}={value:g}" for name, value in self.coefficients)
            raise InputError(
                f"{where}: no image is left when the distortion ({listed}) with principal point "
                f"({self.cx:g}, {self.cy:g}) is removed; calibrate with fewer coefficients, or "
                "undistort the photos with COLMAP"
            )
        return replace(self, fx=self.fx * zoom, fy=self.fy * zoom, distort=None, coefficients=())


def _check(lens: Lens, where: str) -> None:
    near = f"near the image of {lens.width}x{lens.height} pixels"
    checks = [(name, getattr(lens, name), "positive and below a million", 0, _LARGEST)
              for name in ("width", "height")]  # fmt: skip
    checks += [(name, getattr(lens, name), "positive and below a million image sides", 0,
                _LARGEST * max(lens.width, lens.height)) for name in ("fx", "fy")]  # fmt: skip
    checks += [("cx", lens.cx, near, -lens.width, 2 * lens.width)]
    checks += [("cy", lens.cy, near, -lens.height, 2 * lens.height)]
    checks += [(name, value, "finite and below a million", -_LARGEST, _LARGEST)
               for name, value in lens.coefficients]  # fmt: skip
    for name, value, expected, low, high in checks:
        if not low < value < high:
            message = f"{where}: {name} must be {expected}, got {value}; correct the camera's line"
            raise InputError(message)


@lru_cache(maxsize=4096)  # a folder may have as many lenses as photos
def _zoom(lens: Lens) -> float | None:
    """The factor of the focal lengths when distortion is removed; None if nothing is left."""
    # The outer edges of the pinhole image, and a grid inside in which nothing may fold either.
    grids = [(_EDGE_SAMPLES, 2), (2, _EDGE_SAMPLES), (_GRID_SAMPLES, _GRID_SAMPLES)]
    pixels = [
        np.meshgrid(np.linspace(0, lens.width, x), np.linspace(0, lens.height, y)) for x, y in grids
    ]
    columns, rows = (np.concatenate([grid[axis].ravel() for grid in pixels]) for axis in (0, 1))
    rays_x, rays_y = (columns - lens.cx) / lens.fx, (rows - lens.cy) / lens.fy  # [M], at zoom 1

    def is_filled(zoom: float) -> bool:
        x, y = rays_x / zoom, rays_y / zoom
        column, row = lens.project(x, y)
        is_inside = (column >= 0) & (column <= lens.width) & (row >= 0) & (row <= lens.height)
        return bool(is_inside.all() and (_orientation(lens, x, y) > 0).all())

    low, high = _ZOOMS
    if not is_filled(high):
        return None
    for _ in range(_BISECTIONS):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if is_filled(middle) else (middle, high)
    return high


def _orientation(lens: Lens, x: np.ndarray, y: np.ndarray) -> np.ndarray:  # [M]
    """The projection's Jacobian determinant up to a positive factor; negative where it folds.

    By complex steps, f'(x) = Im f(x + ih) / h, which are exact to rounding (Squire & Trapp 1998).
    """
    column_x, row_x = lens.project(x + _COMPLEX_STEP, y)
    column_y, row_y = lens.project(x, y + _COMPLEX_STEP)
    return np.imag(column_x) * np.imag(row_y) - np.imag(column_y) * np.imag(row_x)


@dataclass(frozen=True)
class Warp:
    """Maps a photo, or a mask of it, to the pinhole image of the training view."""

    lens: Lens
    """Lens of the photo as its file holds it."""
    width: int
    """Width and height of the pinhole image."""
    height: int

    @property
    def target(self) -> Lens:
        """The pinhole image's lens."""
        return resized(self.lens.undistorted(), self.width, self.height)

    def image(self, pixels: np.ndarray) -> np.ndarray:  # [h, w, 3 or 4] -> [H, W, 3 or 4]
        """Warps uint8 pixels; colours with an alpha channel are returned premultiplied."""
        if pixels.shape[2] == 4:
            values = pixels.astype(np.float32)
            values[..., :3] *= values[..., 3:] / 255
            return np.clip(self._apply(values, cv2.INTER_LINEAR) + 0.5, 0, 255).astype(np.uint8)
        return self._apply(pixels, cv2.INTER_CUBIC)

    def mask(self, mask: np.ndarray) -> np.ndarray:  # [h, w] bool -> [H, W] bool
        """Warps a mask; True where it covers more than half of the pixel."""
        if mask.shape != (self.lens.height, self.lens.width):  # drawn for the photo at another size
            size = (self.lens.width, self.lens.height)
            mask = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.5
        if not self.lens.is_distorted and mask.shape == (self.height, self.width):
            return mask
        return self._apply(mask.astype(np.float32), cv2.INTER_LINEAR) > 0.5

    def photo(self, values: np.ndarray) -> np.ndarray:  # [H, W] float32 -> [h, w] float32
        """Warps values of the pinhole image back to the photo; 0 where it does not reach."""
        size = self.lens.width, self.lens.height
        if values.shape != size[::-1]:
            values = cv2.resize(values, size, interpolation=cv2.INTER_LINEAR)
        if self.lens.is_distorted:
            x, y = _distortion_maps(self.lens)
            values = cv2.remap(values, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        return values

    def _apply(self, pixels: np.ndarray, interpolation: int) -> np.ndarray:
        if self.lens.is_distorted:
            x, y = _undistortion_maps(self.lens)
            pixels = cv2.remap(pixels, x, y, interpolation, borderMode=cv2.BORDER_REPLICATE)
        if pixels.shape[:2] != (self.height, self.width):
            pixels = cv2.resize(pixels, (self.width, self.height), interpolation=cv2.INTER_AREA)
        return pixels


@lru_cache(maxsize=4)
def _undistortion_maps(lens: Lens) -> tuple[np.ndarray, np.ndarray]:  # [h, w], [h, w]
    """Column and row in the photo, pixel centres at integers, of the pinhole image's pixels."""
    target = lens.undistorted()
    x = (np.arange(lens.width) + 0.5 - target.cx) / target.fx
    y = (np.arange(lens.height) + 0.5 - target.cy) / target.fy
    columns, rows = (np.empty((lens.height, lens.width), dtype=np.float32) for _ in range(2))
    for start in range(0, lens.height, _ROWS):
        part = slice(start, start + _ROWS)
        column, row = lens.project(x[None, :], y[part, None])
        columns[part], rows[part] = column - 0.5, row - 0.5
    return columns, rows


@lru_cache(maxsize=4)
def _distortion_maps(lens: Lens) -> tuple[np.ndarray, np.ndarray]:  # [h, w], [h, w]
    """Column and row in the pinhole image, pixel centres at integers, of the photo's pixels.

    By Newton's method with derivatives by complex steps; far outside where it does not converge.
    """
    target = lens.undistorted()
    columns, rows = (np.empty((lens.height, lens.width), dtype=np.float32) for _ in range(2))
    for start in range(0, lens.height, _ROWS):
        part = slice(start, min(start + _ROWS, lens.height))
        column, row = np.meshgrid(np.arange(lens.width) + 0.5, np.arange(lens.height)[part] + 0.5)
        x, y = (column - lens.cx) / lens.fx, (row - lens.cy) / lens.fy
        with np.errstate(all="ignore"):  # where it diverges
            for _ in range(_NEWTON_STEPS):
                column_x, row_x = lens.project(x + _COMPLEX_STEP, y)
                column_y, row_y = lens.project(x, y + _COMPLEX_STEP)
                off_column, off_row = np.real(column_x) - column, np.real(row_x) - row
                a, b, c, d = (
                    np.imag(value) / _COMPLEX_STEP.imag
                    for value in (column_x, column_y, row_x, row_y)
                )
                determinant = a * d - b * c
                x = x - (d * off_column - b * off_row) / determinant
                y = y - (a * off_row - c * off_column) / determinant
            found_column, found_row = lens.project(x, y)
            is_found = np.hypot(found_column - column, found_row - row) < _CONVERGED
            columns[part] = np.where(is_found, x * target.fx + target.cx - 0.5, -_LARGEST)
            rows[part] = np.where(is_found, y * target.fy + target.cy - 0.5, -_LARGEST)
    return columns, rows
