"""Image files: finding, checking and decoding them; a cache that keeps to a memory budget."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from refer3d.runs.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
# What a whole file has near its end; some cameras append previews behind it.
_END_MARKERS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}
_FAILURES = (OSError, SyntaxError, Image.DecompressionBombError)
"""What Pillow raises for files that it cannot decode or that are suspiciously large."""
_TAIL = 4096
_NUM_THREADS = 8  # opening a file waits for the disk more than it computes

T = TypeVar("T")
R = TypeVar("R")


class ImageFolder:
    """The image files of a scene, found by the names that its pose files give them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def files(self) -> list[str]:
        """Paths of all images below the folder, with forward slashes, sorted."""
        return sorted(
            path.relative_to(self.folder).as_posix()
            for path in self.folder.rglob("*")
            if path.suffix.lower() in SUFFIXES
        )

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        stems: dict[str, list[str]] = {}
        for file in self.files:
            stems.setdefault(PurePosixPath(file).with_suffix("").as_posix(), []).append(file)
        return stems

    @cached_property
    def _is_there(self) -> frozenset[str]:
        if not self.folder.is_dir():
            raise InputError(
                f"{self.folder}: no such folder, expected the scene's images; copy them there or "
                "name their folder with --data.images"
            )
        if not self.files:
            raise InputError(
                f"{self.folder}: holds no images ({', '.join(SUFFIXES)}); copy them there or name "
                "their folder with --data.images"
            )
        return frozenset(self.files)

    def find(self, name: str, where: str) -> Path:
        """The file of an image, whatever its suffix where the named one is not there.

        Raises:
            InputError: If there is none, or several with other suffixes.
        """
        name = PurePosixPath(name.replace("\\", "/")).as_posix()
        if name in self._is_there:
            return self.folder / name
        path = PurePosixPath(name)
        stem = path.with_suffix("") if path.suffix.lower() in SUFFIXES else path
        matches = self._by_stem.get(stem.as_posix(), [])
        if len(matches) == 1:
            return self.folder / matches[0]
        got = f"{' and '.join(matches)} fit" if matches else f"none of {len(self.files)} images is"
        raise InputError(
            f"{where}: expected the image {self.folder / name}, {got}; copy the missing images, or "
            "name their folder with --data.images"
        )


def read_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file; its pixels are decoded only where its end looks wrong.

    Raises:
        InputError: If the file is missing, no image, or cut short.
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
    """Reads an image as uint8 in RGB, with alpha behind it if it has a meaning.

    Raises:
        InputError: If the file cannot be decoded.
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
    """Reads a mask: 0 and 1, 0 and 255 (or 65535), palette numbers of which 0 is background, or one
    colour on a transparent ground.

    Raises:
        InputError: If the file cannot be decoded, or is none of these.
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
        # Drawn in one colour on nothing, what is drawn is the object.
        is_drawn = np.ptp(alpha) > 0 and len(np.unique(values[alpha > 0])) == 1
        values = alpha if is_drawn else values
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
            f"{path}: its brightest pixel is {peak}, so it is neither a mask of 0 and 1 nor of 0 "
            f"and {2 * half + 1}; save it as one of these"
        )
    return values > half


class PixelCache:
    """Arrays by key, the least recently used dropped first where the budget is exceeded.

    Safe to use from several threads: one loads, the others wait for it.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        """Bytes."""
        self.used = 0
        self._entries: OrderedDict[Hashable, np.ndarray] = OrderedDict()
        self._pending: dict[Hashable, Future[np.ndarray]] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, load: Callable[[], np.ndarray]) -> np.ndarray:
        """The array kept under ``key``, loaded first where it is not there. Do not write to it."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key]
            future = self._pending.get(key)
            is_mine = future is None
            if is_mine:
                future = self._pending[key] = Future()
        if not is_mine:
            return future.result()
        try:
            array = load()
        except BaseException as error:
            with self._lock:
                del self._pending[key]
            future.set_exception(error)
            raise
        with self._lock:
            del self._pending[key]
            self._keep(key, array)
        future.set_result(array)
        return array

    def _keep(self, key: Hashable, array: np.ndarray) -> None:
        if array.nbytes > self.budget:
            return
        while self.used + array.nbytes > self.budget:
            self.used -= self._entries.popitem(last=False)[1].nbytes
        self._entries[key] = array
        self.used += array.nbytes


def in_threads(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Results in the order of the items; the first item's error, if any, is raised."""
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        return list(pool.map(function, items))
