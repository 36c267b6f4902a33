"""Image files: finding, checking, decoding; a cache with a memory budget."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from refer3d.runs.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
# Bytes near the end of a whole file; some cameras append previews.
_END_MARKERS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}
_FAILURES = (OSError, SyntaxError, Image.DecompressionBombError)
"""Pillow's errors for files that it cannot decode or that are suspiciously large."""
_TAIL = 4096
_NUM_THREADS = 8  # opening a file waits for the disk most of the time

T = TypeVar("T")
R = TypeVar("R")


class ImageFolder:
    """The image files of a scene."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def _files(self) -> dict[str, list[str]]:
        """Images below the folder, with forward slashes, by their path without suffix."""
        files: dict[str, list[str]] = {}
        for path in sorted(self.folder.rglob("*")):
            if path.suffix.lower() in SUFFIXES:
                name = path.relative_to(self.folder)
                files.setdefault(name.with_suffix("").as_posix(), []).append(name.as_posix())
        if not files:
            got = "it holds none" if self.folder.is_dir() else "no such folder"
            raise InputError(
                f"{self.folder}: expected the scene's images ({', '.join(SUFFIXES)}), {got}; copy "
                "them there or name their folder with --data.images"
            )
        return files

    def find(self, name: str, where: str) -> Path:
        """The file of an image, or else the only one of the same name with another suffix.

        Raises:
            InputError: There is none, or there are several.
        """
        path = PurePosixPath(name.replace("\\", "/"))
        stem = path.with_suffix("") if path.suffix.lower() in SUFFIXES else path
        matches = self._files.get(stem.as_posix(), [])
        if path.as_posix() in matches:
            return self.folder / path
        if len(matches) == 1:
            return self.folder / matches[0]
        got = " and ".join(matches) or f"none of {sum(map(len, self._files.values()))} files"
        raise InputError(
            f"{where}: expected the image {self.folder / path}, got {got}; copy the missing ones, "
            "or name their folder with --data.images"
        )


def read_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file; decodes it only if its end looks wrong.

    Raises:
        InputError: The file is missing, no image, or cut short.
    """
    try:
        with Image.open(path) as image:
            marker = _END_MARKERS.get(image.format or "")
            if marker is None or marker not in _tail(path):
                image.load()
            return image.size
    except _FAILURES as error:
        raise _unreadable(path, error) from None


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(file.tell() - _TAIL, 0))
        return file.read()


def _unreadable(path: Path, error: Exception) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError(f"{path}: no such file; copy it there")
    reason = "not an image" if isinstance(error, UnidentifiedImageError) else str(error)
    return InputError(f"{path}: cannot be read as an image ({reason}); copy or export it again")


def decode(path: Path) -> np.ndarray:  # [h, w, 3], or [h, w, 4] where something is transparent
    """Reads an image as uint8 RGB, or RGBA if a pixel is transparent.

    Raises:
        InputError: The file cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I") or image.mode == "F":  # 16 bits a pixel
                values = np.asarray(image, dtype=np.float32) / 257
                gray = np.clip(values + 0.5, 0, 255).astype(np.uint8)
                return np.repeat(gray[..., None], 3, axis=2)
            has_alpha = "A" in image.getbands() or "transparency" in image.info
            pixels = np.array(image.convert("RGBA" if has_alpha else "RGB"))
    except _FAILURES as error:
        raise _unreadable(path, error) from None
    if has_alpha and pixels[..., 3].min() == 255:
        return np.ascontiguousarray(pixels[..., :3])
    return pixels


def decode_mask(path: Path) -> np.ndarray:  # [h, w] bool
    """Reads a mask of 0 and 1, of 0 and 255 (or 65535), of palette indices (0 is background), or of
    one colour on a transparent ground.

    Raises:
        InputError: The file cannot be decoded, or is none of these.
    """
    try:
        with Image.open(path) as image:
            is_palette = image.mode == "P"
            has_alpha = image.mode in ("RGBA", "LA")
            values = np.asarray(image.convert("RGBA") if has_alpha else image)
    except _FAILURES as error:
        raise _unreadable(path, error) from None
    if has_alpha:
        values, alpha = values[..., :3].max(axis=2), values[..., 3]
        # One colour on a transparent ground: the opaque pixels are the object.
        is_single = np.ptp(alpha) > 0 and len(np.unique(values[alpha > 0])) == 1
        values = alpha if is_single else values
    elif values.ndim == 3:
        values = values.max(axis=2)
    if values.dtype == bool:
        return values
    peak = int(values.max(initial=0))
    if is_palette or peak <= 1:
        return values > 0
    half = 127 if peak <= 255 else 32767
    if peak <= half:
        raise InputError(
            f"{path}: expected a mask of 0 and 1 or of 0 and {2 * half + 1}, got {peak} as its "
            "largest value; save it as one of these"
        )
    return values > half


class PixelCache:
    """Arrays by key within a memory budget; the least recently used are dropped first.

    Thread-safe: one thread loads a key, the others wait for it.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        """Bytes."""
        self.used = 0
        self._entries: OrderedDict[Hashable, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()
        self._loading: dict[Hashable, threading.Lock] = {}

    def get(self, key: Hashable, load: Callable[[], np.ndarray]) -> np.ndarray:
        """The array of ``key``, loaded if absent; read-only by convention."""
        with self._lock:
            loading = self._loading.setdefault(key, threading.Lock())
        with loading:
            with self._lock:
                if key in self._entries:
                    self._entries.move_to_end(key)
                    return self._entries[key]
            array = load()
            with self._lock:
                self._keep(key, array)
        return array

    def _keep(self, key: Hashable, array: np.ndarray) -> None:
        if array.nbytes > self.budget:
            return
        while self.used + array.nbytes > self.budget:
            self.used -= self._entries.popitem(last=False)[1].nbytes
        self._entries[key] = array
        self.used += array.nbytes


def in_threads(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Maps a function in threads; raises the error of the first item that has one."""
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        return list(pool.map(function, items))
