"""Upright copies of photos, none larger than wanted, with the lens of each."""

from __future__ import annotations

import hashlib
import importlib
import shutil
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from refer3d.runs.errors import InputError
from refer3d.runs.files import atomic_write
from refer3d.runs.progress import Progress
from refer3d.runs.records import read_json
from refer3d.runs.states import Number, check
from refersplat.data.images import SUFFIXES, decode

HEIC = (".heic", ".heif", ".hif", ".avif")
RAW = (".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2")
VIDEOS = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm")
SHARPNESS_SIDE = 640
"""Longer side, in pixels, at which sharpness is measured, so that sizes compare."""
_JPEG_QUALITY = 95
_SMALLEST_SIDE = 64
_FILM_WIDTH = 36.0  # mm, of the 35 mm film that EXIF's equivalent focal length refers to
_PANORAMA = 2.5  # ratio of the sides; wider pictures are stitched: no pinhole camera took them
_TURNS = {
    2: (Image.Transpose.FLIP_LEFT_RIGHT,),
    3: (Image.Transpose.ROTATE_180,),
    4: (Image.Transpose.FLIP_TOP_BOTTOM,),
    5: (Image.Transpose.TRANSPOSE,),
    6: (Image.Transpose.ROTATE_270,),
    7: (Image.Transpose.TRANSVERSE,),
    8: (Image.Transpose.ROTATE_90,),
}
"""Turns that make a picture upright, by EXIF's orientation."""


@dataclass(frozen=True)
class Photo:
    """A photo ready for COLMAP."""

    name: str
    """File in the folder of copies; no spaces, which COLMAP's lists of pairs do not allow."""
    source: str
    """File or frame that it was made from."""
    width: int
    height: int
    lens: str
    """Photos with equal text share one camera: its make, model, focal length and picture size."""
    focal: float
    """Focal length in pixels by EXIF; 0 if unknown."""
    sharpness: float
    """Variance of the Laplacian of its grey levels (0..255) at ``SHARPNESS_SIDE`` pixels."""


@dataclass(frozen=True)
class Collection:
    """The photos, and the files that are none."""

    photos: list[Photo]
    left_out: dict[str, str]
    """Reasons by file."""


COLLECTION = {
    "photos": [
        {
            **dict.fromkeys(("name", "source", "lens"), str),
            **dict.fromkeys(("width", "height"), Number(int, 1)),
            **dict.fromkeys(("focal", "sharpness"), Number(float, 0)),
        }
    ],
    "left_out": {...: str},
}
"""Schema of the list of photos."""


def read_collection(path: Path) -> Collection:
    """Reads the list of an earlier call.

    Raises:
        InputError: The file is damaged, or a photo's name leads out of its folder.
    """
    remedy = "delete it, and the photos are copied again"
    content = check(read_json(path, dict, if_broken=remedy), COLLECTION, str(path), remedy)
    for photo in content["photos"]:
        if set(photo["name"]) & set("/\\\0") or not photo["name"].strip("."):
            raise InputError(f"{path}: expected names of copies, got {photo['name']!r}; {remedy}")
    return Collection([Photo(**photo) for photo in content["photos"]], content["left_out"])


def collect_photos(source: Path, folder: Path, longest_side: int) -> Collection:
    """Copies the photos of a folder and of those below it.

    Args:
        source: Folder of photos; jpg, png, webp, bmp, tif, or HEIC.
        folder: Folder of the copies; what it holds is kept where it is up to date.
        longest_side: Largest side of a copy in pixels; 0 keeps the size.

    Raises:
        InputError: The folder has no photos, or HEIC cannot be read here.
    """
    files = sorted(path for path in source.rglob("*") if path.is_file())
    files = [path for path in files if not path.name.startswith(".")]
    images = [path for path in files if path.suffix.lower() in (*SUFFIXES, *HEIC)]
    if not images:
        raise InputError(f"{source}: expected photos ({', '.join(SUFFIXES)}), {_others(files)}")
    open_heic(images)
    folder.mkdir(parents=True, exist_ok=True)
    photos: list[Photo] = []
    left_out = {
        str(path.relative_to(source)): "raw files are not read; export it as JPEG"
        for path in files
        if path.suffix.lower() in RAW
    }
    digests: dict[str, str] = {}
    names = _names(path.relative_to(source) for path in images)
    with Progress("photos", len(images)) as progress:
        for path, name in zip(images, names, strict=True):
            relative = str(path.relative_to(source))
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if digest in digests:
                left_out[relative] = f"the same file as {digests[digest]}"
            else:
                digests[digest] = relative
                try:
                    photos.append(_copy(path, folder, name, relative, longest_side))
                except InputError as error:
                    left_out[relative] = str(error).removeprefix(f"{path}: ")
            progress.advance()
    return Collection(photos, left_out)


def open_heic(paths: Iterable[Path]) -> None:
    """Teaches Pillow to read HEIC if one of the files needs it.

    Raises:
        InputError: The reader is not installed.
    """
    heic = next((path for path in paths if path.suffix.lower() in HEIC), None)
    if heic is None:
        return
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError as error:
        raise InputError(
            f"{heic}: is a HEIC photo, which needs pillow-heif; pip install 'refer3d[photos]', or "
            "export the photos as JPEG"
        ) from error


def sharpness(pixels: np.ndarray) -> float:  # [h, w, 3] or [h, w] uint8
    """Variance of the Laplacian, at a common size."""
    gray = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    factor = SHARPNESS_SIDE / max(gray.shape)
    if factor < 1:
        gray = cv2.resize(gray, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    return float(cv2.Laplacian(gray, cv2.CV_64F).var())


def smaller(picture: Image.Image, longest_side: int) -> Image.Image:
    """A picture with no side longer than ``longest_side`` pixels; 0 keeps it."""
    factor = longest_side / max(picture.size)
    if not longest_side or factor >= 1:
        return picture
    width, height = (max(1, round(side * factor)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)


def save_jpeg(picture: Image.Image, path: Path) -> None:
    """Writes a JPEG of high quality."""
    with atomic_write(path) as file:
        picture.save(file, format="JPEG", quality=_JPEG_QUALITY)


def _others(files: list[Path]) -> str:
    if video := next((path for path in files if path.suffix.lower() in VIDEOS), None):
        return f"got none but the video {video.name}; name the video itself"
    if raw := next((path for path in files if path.suffix.lower() in RAW), None):
        return f"got none but raw files ({raw.name}); export them as JPEG"
    if files:
        return f"got none but {files[0].name}; copy the photos there"
    return "got none; copy them there"


def _names(paths: Iterable[Path]) -> list[str]:
    """Names of copies: one folder, no spaces, each once."""
    names: list[str] = []
    taken = set()
    for path in paths:
        stem = "_".join("_".join(path.with_suffix("").parts).split())
        name, number = stem, 2
        while name.lower() in taken:
            name, number = f"{stem}_{number}", number + 1
        taken.add(name.lower())
        names.append(name)
    return names


def _copy(path: Path, folder: Path, name: str, source: str, longest_side: int) -> Photo:
    with warnings.catch_warnings():  # of more than 89 megapixels
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        exif, kind = _read_exif(path)
        pixels = decode(path)[..., :3]
    upright = picture = Image.fromarray(pixels)
    turns = _TURNS.get(exif.get(ExifTags.Base.Orientation, 1), ())
    for turn in turns:
        upright = upright.transpose(turn)
    if max(upright.size) > _PANORAMA * min(upright.size):
        raise InputError(f"{path}: is a panorama of {upright.width}x{upright.height} pixels, which "
                         "no pinhole camera took; take single photos")  # fmt: skip
    if min(upright.size) < _SMALLEST_SIDE:
        raise InputError(f"{path}: is only {upright.width}x{upright.height} pixels; copy the photo "
                         "itself, not its preview")  # fmt: skip
    final = smaller(upright, longest_side)
    is_kept = final is picture and kind in ("JPEG", "PNG")
    target = folder / f"{name}.{'png' if is_kept and kind == 'PNG' else 'jpg'}"
    if is_kept:
        shutil.copyfile(path, target)
    else:
        save_jpeg(final, target)
    film = float(exif.get(ExifTags.Base.FocalLengthIn35mmFilm, 0) or 0)
    return Photo(
        *(target.name, source, *final.size),
        lens=_lens(exif, upright.size),
        focal=film / _FILM_WIDTH * max(final.size),
        sharpness=sharpness(np.asarray(final)),
    )


def _read_exif(path: Path) -> tuple[dict[int, Any], str]:
    """EXIF's tags, those of its photographic part included, and the format of the file."""
    try:
        with Image.open(path) as image:
            exif = image.getexif()
            return {**exif, **exif.get_ifd(ExifTags.IFD.Exif)}, image.format or ""
    except UnidentifiedImageError:
        raise InputError(f"{path}: is no image, whatever its name says; export it again") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return {}, ""  # without EXIF; decoding names what else is wrong


def _lens(exif: dict[int, Any], size: tuple[int, int]) -> str:
    tags = ExifTags.Base
    words = [str(exif.get(tag, "")).strip("\0 ") for tag in (tags.Make, tags.Model, tags.LensModel)]
    film, focal = exif.get(tags.FocalLengthIn35mmFilm), exif.get(tags.FocalLength)
    words.append(f"{float(film):g} mm on film" if film else f"{float(focal):g} mm" if focal else "")
    return " ".join([*filter(None, words), f"{size[0]}x{size[1]}"])
