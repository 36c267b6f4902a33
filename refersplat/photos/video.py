"""Sharp frames of a video."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from refer3d.runs.errors import InputError
from refer3d.runs.progress import Progress
from refersplat.photos.collect import Collection, Photo, save_jpeg, sharpness, smaller

CANDIDATES = 8
"""Frames of an interval that are compared."""
STILL = 3.0
"""Mean difference of grey levels (0..255) below which the camera has not moved."""
_THUMBNAIL = (64, 64)


def collect_frames(video: Path, folder: Path, number: int, longest_side: int) -> Collection:
    """Writes the sharpest frame of each of ``number`` equal intervals of a video.

    Frames that equal the one before are left out: the camera stood still.

    Raises:
        InputError: The file is no video, or has no frames.
    """
    count = _count(video)
    if count == 0:
        raise InputError(
            f"{video}: expected a video, got a file without frames that can be decoded; convert it "
            "to MP4 (H.264), or export its frames as photos"
        )
    folder.mkdir(parents=True, exist_ok=True)
    photos: list[Photo] = []
    left_out: dict[str, str] = {}
    last = None
    number = min(number, count)
    with Progress("frames", number) as progress:
        for index, pixels, value in _sharpest(video, count, number):
            thumbnail = cv2.resize(pixels, _THUMBNAIL, interpolation=cv2.INTER_AREA).astype(float)
            if last is not None and np.abs(thumbnail - last).mean() < STILL:
                left_out[f"frame {index}"] = "equals the frame before it: the camera stood still"
            else:
                last = thumbnail
                picture = smaller(Image.fromarray(pixels), longest_side)
                name = f"frame_{index:05d}.jpg"
                save_jpeg(picture, folder / name)
                lens = f"video {picture.width}x{picture.height}"
                photos.append(
                    Photo(name, f"frame {index}", *picture.size, lens, focal=0.0, sharpness=value)
                )
            progress.advance()
    return Collection(photos, left_out)


def _open(video: Path) -> cv2.VideoCapture:
    """OpenCV's reader, which turns frames as the file says; it writes its own errors to stderr."""
    return cv2.VideoCapture(str(video))


def _count(video: Path) -> int:
    """Number of frames, by decoding: headers are wrong in many files of phones."""
    reader, count = _open(video), 0
    while reader.grab():
        count += 1
    reader.release()
    return count


def _sharpest(
    video: Path, count: int, number: int
) -> Iterator[tuple[int, np.ndarray, float]]:  # frame from 1 on, [h, w, 3] RGB, its sharpness
    reader = _open(video)
    for interval in range(number):
        start, end = interval * count // number, (interval + 1) * count // number
        step = max(1, (end - start) // CANDIDATES)
        best: tuple[int, np.ndarray, float] | None = None
        for index in range(start, end):
            if not reader.grab():
                break
            if (index - start) % step:
                continue
            is_read, pixels = reader.retrieve()
            value = sharpness(pixels) if is_read else -1.0
            if is_read and (best is None or value > best[2]):
                best = index + 1, pixels, value
        if best is not None:
            yield best[0], cv2.cvtColor(best[1], cv2.COLOR_BGR2RGB), best[2]
    reader.release()
