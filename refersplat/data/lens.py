"""Lenses: intrinsics with distortion, and the warp that takes a photo to a pinhole image."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np

from runs.errors import InputError

_NO_DISTORTION = (0.0, 0.0, 0.0, 0.0, 0.0)
_BORDER_SAMPLES = 257  # points per image side along which the distortion is inverted


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
            InputError: If the distortion folds the image over itself, so that no inverse exists.
        """
        return _undistorted(self, where) if self.is_distorted else self


@lru_cache(maxsize=64)
def _undistorted(lens: Lens, where: str) -> Lens:
    steps = np.linspace(0.0, 1.0, _BORDER_SAMPLES)
    x, y = steps * lens.width - 0.5, steps * lens.height - 0.5  # integer pixel centres
    left, right = np.full_like(y, -0.5), np.full_like(y, lens.width - 0.5)
    top, bottom = np.full_like(x, -0.5), np.full_like(x, lens.height - 0.5)
    border = np.stack(
        [np.concatenate([left, right, x, x]), np.concatenate([y, y, top, bottom])], axis=-1
    )  # [4 * samples, 2]
    stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 200, 1e-12)
    rays = cv2.undistortPoints(
        border[:, None], lens.matrix, np.array(lens.distortion), criteria=stop
    )[:, 0]  # [4 * samples, 2], at depth 1
    again = _distort(rays, lens)
    if not np.isfinite(rays).all() or np.abs(again - border).max() > 0.05:
        raise InputError(
            f"{where}: distortion {lens.distortion} folds the image over itself before its border; "
            "calibrate with fewer coefficients or undistort the photos with COLMAP"
        )
    n = _BORDER_SAMPLES
    # The pinhole image may reach as far as the innermost point of each warped side.
    reach = (
        (lens.cx, -rays[:n, 0].max() * lens.fx),
        (lens.width - lens.cx, rays[n : 2 * n, 0].min() * lens.fx),
        (lens.cy, -rays[2 * n : 3 * n, 1].max() * lens.fy),
        (lens.height - lens.cy, rays[3 * n :, 1].min() * lens.fy),
    )
    if any(wanted <= 0 or seen <= 0 for wanted, seen in reach):
        raise InputError(
            f"{where}: a distorted photo's principal point must lie inside it, got "
            f"({lens.cx:g}, {lens.cy:g}) in {lens.width}x{lens.height}; undistort with COLMAP"
        )
    zoom = float(max(wanted / seen for wanted, seen in reach))
    return replace(lens, fx=lens.fx * zoom, fy=lens.fy * zoom, distortion=_NO_DISTORTION)


def _distort(rays: np.ndarray, lens: Lens) -> np.ndarray:  # [M, 2] -> [M, 2] pixels
    k1, k2, p1, p2, k3 = lens.distortion
    x, y = rays[:, 0], rays[:, 1]
    r = x * x + y * y
    radial = 1 + r * (k1 + r * (k2 + r * k3))
    bent_x = x * radial + 2 * p1 * x * y + p2 * (r + 2 * x * x)
    bent_y = y * radial + p1 * (r + 2 * y * y) + 2 * p2 * x * y
    return np.stack([bent_x * lens.fx + lens.cx - 0.5, bent_y * lens.fy + lens.cy - 0.5], axis=-1)


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
