"""Lenses: intrinsics with distortion, and the warp that takes a photo to a pinhole image."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np

from refer3d.runs.errors import InputError

_NO_DISTORTION = (0.0, 0.0, 0.0, 0.0, 0.0)
_EDGE_SAMPLES = 65  # points per image side at which a zoom is tried
_GRID_SAMPLES = 13
_ZOOMS = (0.25, 16.0)  # focal length after undistortion over the one before
_BISECTIONS = 26


@dataclass(frozen=True)
class Lens:
    """Intrinsics in pixels, pixel centres at .5 (COLMAP's convention)."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    distortion: tuple[float, float, float, float, float] = _NO_DISTORTION
    """k1, k2, p1, p2, k3 of OpenCV's model."""

    @property
    def is_distorted(self) -> bool:
        """Whether a photo must be warped to fit a pinhole camera."""
        return any(self.distortion)

    @property
    def matrix(self) -> np.ndarray:  # [3, 3]
        """OpenCV's camera matrix, in which pixel centres lie at integers."""
        return np.array(
            [[self.fx, 0, self.cx - 0.5], [0, self.fy, self.cy - 0.5], [0, 0, 1]], dtype=np.float64
        )

    def resized(self, width: int, height: int) -> Lens:
        """The same lens for an image of another size."""
        x, y = width / self.width, height / self.height
        return replace(
            self,
            fx=self.fx * x,
            fy=self.fy * y,
            cx=self.cx * x,
            cy=self.cy * y,
            width=width,
            height=height,
        )

    def checked(self, where: str) -> Lens:
        """This lens, if a photo can have been taken through it.

        Raises:
            InputError: If a focal length, size or coefficient makes no sense.
        """
        for name in ("fx", "fy", "width", "height"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InputError(
                    f"{where}: {name} must be positive, got {value}; correct the camera's line"
                )
        if not all(map(math.isfinite, (self.cx, self.cy, *self.distortion))):
            raise InputError(
                f"{where}: principal point and distortion must be finite, got "
                f"{(self.cx, self.cy)} and {self.distortion}; correct the camera's line"
            )
        if not (-self.width < self.cx < 2 * self.width) or not (
            -self.height < self.cy < 2 * self.height
        ):
            raise InputError(
                f"{where}: the principal point must lie near the image of {self.width}x"
                f"{self.height} pixels, got ({self.cx:g}, {self.cy:g}); correct the camera's line"
            )
        return self

    def undistorted(self, where: str = "camera") -> Lens:
        """The pinhole lens whose image this lens's photo fills without black borders.

        Size and principal point stay; the focal lengths grow or shrink together, as little as it
        takes that every pixel of the pinhole image was seen and no more than needed is cut off.

        Raises:
            InputError: If the distortion leaves no such image.
        """
        if not self.is_distorted:
            return self
        zoom = _zoom(self)
        if zoom is None:
            raise InputError(
                f"{where}: no image is left when distortion {self.distortion} with principal point "
                f"({self.cx:g}, {self.cy:g}) is removed; calibrate with fewer coefficients, or "
                "undistort the photos with COLMAP"
            )
        return replace(self, fx=self.fx * zoom, fy=self.fy * zoom, distortion=_NO_DISTORTION)


@lru_cache(maxsize=4096)  # a folder may have as many lenses as photos
def _zoom(lens: Lens) -> float | None:
    """How much longer the focal lengths get when distortion is removed; None if nothing is left."""
    # The outer edges of the pinhole image, and a grid inside in which nothing may fold either.
    grids = [(_EDGE_SAMPLES, 2), (2, _EDGE_SAMPLES), (_GRID_SAMPLES, _GRID_SAMPLES)]
    pixels = np.concatenate(
        [
            np.stack(
                np.meshgrid(np.linspace(0, lens.width, x), np.linspace(0, lens.height, y)), axis=-1
            ).reshape(-1, 2)
            for x, y in grids
        ]
    )
    corner = np.array([lens.cx, lens.cy])
    rays = (pixels - corner) / (lens.fx, lens.fy)  # [M, 2], at zoom 1

    def is_seen(zoom: float) -> bool:
        bent, area = _distort(rays / zoom, lens.distortion)
        position = bent * (lens.fx, lens.fy) + corner
        is_inside = (position >= 0) & (position <= (lens.width, lens.height))
        return bool(is_inside.all() and (area > 0).all())

    low, high = _ZOOMS
    if not is_seen(high):
        return None
    for _ in range(_BISECTIONS):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if is_seen(middle) else (middle, high)
    return high


def _distort(
    rays: np.ndarray,  # [M, 2]
    distortion: tuple[float, ...],
) -> tuple[np.ndarray, np.ndarray]:
    """OpenCV's distortion: the bent rays [M, 2] and how it scales areas [M], below 0 mirrored."""
    k1, k2, p1, p2, k3 = distortion
    x, y = rays[:, 0], rays[:, 1]
    r = x * x + y * y
    radial = 1 + r * (k1 + r * (k2 + r * k3))
    slope = k1 + r * (2 * k2 + r * 3 * k3)  # of radial, by r
    bent_x = x * radial + 2 * p1 * x * y + p2 * (r + 2 * x * x)
    bent_y = y * radial + p1 * (r + 2 * y * y) + 2 * p2 * x * y
    xx = radial + 2 * x * x * slope + 2 * p1 * y + 6 * p2 * x
    yy = radial + 2 * y * y * slope + 6 * p1 * y + 2 * p2 * x
    xy = 2 * x * y * slope + 2 * p1 * x + 2 * p2 * y
    return np.stack([bent_x, bent_y], axis=-1), xx * yy - xy * xy


@dataclass(frozen=True)
class Warp:
    """Takes a photo, or a mask of it, to the pinhole image that training sees."""

    lens: Lens
    """Of the photo as its file holds it."""
    width: int
    """Of the pinhole image."""
    height: int

    @property
    def target(self) -> Lens:
        """The pinhole image's lens."""
        return self.lens.undistorted().resized(self.width, self.height)

    def image(self, pixels: np.ndarray) -> np.ndarray:  # [h, w, 3 or 4] -> [H, W, 3 or 4]
        """Warps uint8 pixels; with an alpha channel the colours come out multiplied by it."""
        if pixels.shape[2] == 4:
            values = pixels.astype(np.float32)
            values[..., :3] *= values[..., 3:] / 255
            return np.clip(self._apply(values, cv2.INTER_LINEAR) + 0.5, 0, 255).astype(np.uint8)
        return self._apply(pixels, cv2.INTER_CUBIC)

    def mask(self, mask: np.ndarray) -> np.ndarray:  # [h, w] bool -> [H, W] bool
        """Warps a mask: a pixel belongs to it where it covers more than half of its area."""
        if mask.shape != (self.lens.height, self.lens.width):  # drawn for the photo's other sizes
            size = (self.lens.width, self.lens.height)
            mask = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.5
        if not self.lens.is_distorted and mask.shape == (self.height, self.width):
            return mask
        return self._apply(mask.astype(np.float32), cv2.INTER_LINEAR) > 0.5

    def _apply(self, pixels: np.ndarray, interpolation: int) -> np.ndarray:
        if self.lens.is_distorted:
            x, y = _undistortion_maps(self.lens)
            pixels = cv2.remap(pixels, x, y, interpolation, borderMode=cv2.BORDER_REPLICATE)
        if pixels.shape[:2] != (self.height, self.width):
            pixels = cv2.resize(pixels, (self.width, self.height), interpolation=cv2.INTER_AREA)
        return pixels


@lru_cache(maxsize=4)
def _undistortion_maps(lens: Lens) -> tuple[np.ndarray, np.ndarray]:
    return cv2.initUndistortRectifyMap(
        lens.matrix,
        np.array(lens.distortion),
        None,
        lens.undistorted().matrix,
        (lens.width, lens.height),
        cv2.CV_32FC1,
    )
