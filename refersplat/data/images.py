"""Image files: finding, checking, decoding; a cache with a memory budget."""

from __future__ import annotations

import os
import re
import struct
import threading
import unicodedata
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from refer3d.runs.errors import InputError, reason
from refer3d.runs.files import decode_text, describe_content

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
# Bytes near the end of a whole file; some cameras append previews.
_END_MARKERS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}
_FAILURES = (
    *(OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, ArithmeticError),
    *(MemoryError, struct.error, Image.DecompressionBombError),
)
"""Pillow's errors for files that it cannot decode or that are suspiciously large."""
_WITH_ALPHA = ("RGBA", "RGBa", "LA", "La", "PA")
_NEARLY_BLACK = 16
"""Brightest black, and largest difference of a gray's channels, of a palette: quantizers round. The
darkest colours of usual label palettes have 32."""
_TAIL = 4096
_NUM_THREADS = 8  # opening a file waits for the disk most of the time

T = TypeVar("T")
R = TypeVar("R")


def list_files(folder: Path) -> list[str]:
    """Files below a folder, sorted, with forward slashes; links to folders are followed.

    Hidden files and folders, such as macOS's ``._`` copies, are left out.
    """
    files = []
    # The real places of the folders above each, to which a link may lead back.
    chains: dict[str, tuple[str, ...]] = {str(folder): ()}
    for parent, folders, names in os.walk(folder, followlinks=True):
        chain = (*chains.pop(parent), os.path.realpath(parent))
        inner = [os.path.join(parent, name) for name in folders if not name.startswith(".")]
        inner = [path for path in inner if os.path.realpath(path) not in chain]
        folders[:] = [os.path.basename(path) for path in inner]
        chains.update(dict.fromkeys(inner, chain))
        files += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(path.relative_to(folder).as_posix() for path in files)


def fold(name: str) -> str:
    """A path's spelling for comparisons: forward slashes, composed letters (NFC), lower case.

    Bytes of a name that are not UTF-8 are read as Windows-1252. A half character, as JSON's escapes
    allow, is in no file's name.
    """
    name = re.sub("[\ud800-\udc7f\udd00-\udfff]", "\ufffd", name.replace("\\", "/"))
    text = decode_text(os.fsencode(name))
    return unicodedata.normalize("NFC", PurePosixPath(text).as_posix()).casefold()


class ImageFolder:
    """The image files of a scene."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def _names(self) -> list[str]:
        return list_files(self.folder)

    @cached_property
    def _files(self) -> dict[str, list[str]]:
        """Images below the folder by their folded path without suffix."""
        files: dict[str, list[str]] = {}
        for name in self._names:
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in SUFFIXES:
                files.setdefault(fold(stem), []).append(name)
        return files

    def matches(self, name: str) -> list[Path]:
        """The file of an image, or else those of the same name with another suffix.

        Letters' case and Unicode form do not count where one file alone matches. Of an absolute
        path, as programs on other machines write it, the part below the images' folder counts, or
        else its last part.
        """
        path = name.replace("\\", "/")
        if path.startswith("/") or path[1:3] == ":/":
            below = path.rpartition(f"/{self.folder.name}/")[2]
            path = below if _stem(below) in self._files else path.rpartition("/")[2]
        path = PurePosixPath(path).as_posix()
        files = self._files.get(_stem(path), [])
        for spelling in (str, fold):
            exact = [file for file in files if spelling(file) == spelling(path)]
            if len(exact) == 1:
                files = exact
        return [self.folder / file for file in files]

    def find(self, name: str, where: str) -> Path:
        """The file of an image, as :meth:`matches` finds it.

        Raises:
            InputError: There is none, or there are several.
        """
        matches = self.matches(name)
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise several(matches, where)
        remedy = "copy the missing ones, or name their folder with --data.images"
        if self._files:
            got = f"none of {sum(map(len, self._files.values()))} files"
            raise InputError(
                f"{where}: expected the image {self.folder / name}, got {got}; {remedy}"
            )
        got = "it holds none" if self.folder.is_dir() else "no such folder"
        if self._names:
            kinds = Counter(os.path.splitext(name)[1] or "no suffix" for name in self._names)
            kind, count = kinds.most_common(1)[0]
            got = f"{len(self._names)} other files, {count} of them {kind}"
            remedy = f"convert them, or {remedy}"
        raise InputError(
            f"{self.folder}: expected the scene's images ({', '.join(SUFFIXES)}), got {got}; "
            f"{remedy}"
        )


def several(matches: Sequence[Path], where: str) -> InputError:
    """Makes the error of an image's name that several files have."""
    names = " and ".join(path.name for path in matches)
    return InputError(
        f"{where}: expected one image of that name in {matches[0].parent}, got {names}; write the "
        "suffix into the name, or delete the others"
    )


def _stem(path: str) -> str:
    stem, suffix = os.path.splitext(path)
    return fold(stem if suffix.lower() in SUFFIXES else path)


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
    text = reason(error)
    if isinstance(error, UnidentifiedImageError):
        with suppress(OSError), path.open("rb") as file:
            text = describe_content(file.read(64)) or "of no kind that Pillow knows"
        text = f"not an image, {text}"
    return InputError(
        f"{path}: cannot be read as an image ({text}); copy or export it again, as PNG or JPEG"
    )


def decode(path: Path) -> np.ndarray:  # [h, w, 3], or [h, w, 4] where something is transparent
    """Reads an image as uint8 RGB, or RGBA if a pixel is transparent.

    Raises:
        InputError: The file cannot be decoded, or its numbers are on no known scale.
    """
    pixels = _read(path, _colors)
    if pixels.shape[2] == 4 and pixels[..., 3].min() == 255:
        return np.ascontiguousarray(pixels[..., :3])
    return pixels


def decode_mask(path: Path) -> np.ndarray:  # [h, w] bool
    """Reads a mask: white on black, 1 on 0, a palette on black, or one colour on nothing.

    Raises:
        InputError: The file cannot be decoded, or is none of these.
    """
    return _read(path, _mask)


def _read(path: Path, take: Callable[[Image.Image, Path], np.ndarray]) -> np.ndarray:
    try:
        with Image.open(path) as image:
            return take(image, path)
    except InputError:
        raise
    except _FAILURES as error:
        raise _unreadable(path, error) from None


def _colors(image: Image.Image, path: Path) -> np.ndarray:  # [h, w, 3 or 4] uint8
    if image.mode.startswith("I") or image.mode == "F":
        return np.repeat(_gray(image, path)[..., None], 3, axis=2)
    has_alpha = image.mode in _WITH_ALPHA or "transparency" in image.info
    return np.array(image.convert("RGBA" if has_alpha else "RGB"))


def _gray(image: Image.Image, path: Path) -> np.ndarray:  # [h, w] uint8
    """Scales numbers of 16 or 32 bits by the white that they encode."""
    values = np.asarray(image).astype(np.float64)
    peak = values.max(initial=0)
    is_16_bit = image.mode.startswith("I;16") or image.format in ("PNG", "PPM")
    if image.mode == "F" and peak <= 1:
        white = 1
    else:
        white = 65535 if is_16_bit or peak > 255 else 255
    is_whole = white == 1 or not (values % 1).any()  # NaN is not, either
    is_dim = is_16_bit and 0 < peak <= 255  # 8 bits' numbers in 16 bits, or black
    if not 0 <= values.min(initial=0) <= peak <= white or not is_whole or is_dim:
        raise InputError(
            f"{path}: expected gray values of 0 to 255, to 65535, or to 1 in floating point, got "
            f"{values.min():g} to {peak:g} in {image.mode}; save it with 8 bits"
        )
    return (values * (255 / white) + 0.5).astype(np.uint8)


def _mask(image: Image.Image, path: Path) -> np.ndarray:  # [h, w] bool
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image)
        small = image.mode != "F" and values.max(initial=0) <= 255
        return _half(values if small else _gray(image, path), path)
    pixels = _colors(image, path)
    values = pixels[..., :3].max(axis=2)
    if pixels.shape[2] == 4:
        alpha = pixels[..., 3]
        shown = pixels[alpha > 0, :3]
        # One colour on a transparent ground: the opaque pixels are the object.
        is_single = np.ptp(alpha) > 0 and bool((shown == shown[:1]).all())
        return _half(alpha if is_single else np.where(alpha > 127, values, 0), path)
    if image.mode != "P":
        return _half(values, path)
    is_colored = bool((np.ptp(pixels, axis=2) > _NEARLY_BLACK).any())
    if not is_colored and values.max(initial=0) > 127:
        return _half(values, path)
    # Colours of labels, some of them dark: all but black are objects.
    if is_colored and values.min() > _NEARLY_BLACK and max((image.getpalette() or [0])[:3]) > 0:
        raise InputError(
            f"{path}: expected a mask with a black ground, got a palette of colours without black; "
            "save it in black and white"
        )
    return values > (_NEARLY_BLACK if is_colored else 0)


def _half(values: np.ndarray, path: Path) -> np.ndarray:  # [h, w] -> [h, w] bool
    peak = int(values.max(initial=0))
    if 1 < peak <= 127:
        raise InputError(
            f"{path}: expected a mask of 0 and 1 or of 0 and 255, got {peak} as its largest value; "
            "save it in black and white"
        )
    return values > (127 if peak > 1 else 0)


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
