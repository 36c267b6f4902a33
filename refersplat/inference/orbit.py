"""Videos of a flight around the scene."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from refer3d.runs.errors import InputError
from refer3d.runs.progress import Progress
from refersplat.cameras import Camera, look_at_point
from refersplat.inference.overlay import add_caption, draw_overlay, enlargement, to_pixels
from refersplat.inference.trained_scene import TrainedScene
from refersplat.splats.gaussians import Gaussians
from refersplat.splats.render import render

FRAMES_PER_SECOND = 24


@torch.inference_mode()
def draw_scene(
    gaussians: Gaussians,
    cameras: Iterable[Camera],
    background: Tensor,  # [3]
) -> Iterator[np.ndarray]:  # [h, w, 3] uint8
    """Renders the scene from each camera."""
    for camera in cameras:
        pixels = to_pixels(render(gaussians, camera, background=background).color)
        factor = enlargement(camera.width)
        yield cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)


@torch.inference_mode()
def draw_sentence(
    trained: TrainedScene,
    sentence: str,
    cameras: Iterable[Camera],
    background: Tensor,  # [3]
) -> Iterator[np.ndarray]:  # [h, w, 3] uint8
    """Renders the scene from each camera, with the object marked and the sentence below."""
    cameras = list(cameras)
    responses = trained.respond([sentence], cameras[0])  # "left" stays left of the first view
    (threshold,) = responses.thresholds
    for camera in cameras:
        image = render(trained.gaussians, camera, background=background).color.clamp(0, 1)
        (visible,) = trained.visible(responses, trained.blend(camera))
        (amodal,) = trained.amodal(responses, camera)
        marked = draw_overlay(image, visible >= threshold, amodal >= threshold)
        yield np.asarray(add_caption(marked, sentence))


def write_video(path: Path, pictures: Iterable[np.ndarray], count: int) -> None:
    """Writes an MP4 of ``count`` pictures [h, w, 3] of one size.

    Raises:
        InputError: OpenCV has no MP4 encoder.
        OSError: The video is incomplete.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.stem}.{os.getpid()}.mp4")
    writer = None
    try:
        with Progress("orbit", count) as progress:
            for picture in pictures:
                height, width = (side // 2 * 2 for side in picture.shape[:2])  # MPEG-4 needs even
                writer = writer or _open(draft, width, height)
                writer.write(np.ascontiguousarray(picture[:height, :width, ::-1]))
                progress.advance()
        if writer is not None:
            writer.release()
        if _count_frames(draft) != count:  # OpenCV does not report a full disk
            raise OSError(errno.EIO, "cannot be written whole; is the disk full?", str(path))
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def circle(
    cameras: Sequence[Camera],
    count: int,
    means: Tensor,  # [N, 3]
) -> list[Camera]:
    """Places cameras on a circle around the point that the given ones look at.

    They keep to the median distance and height of the given ones. Without a common point, they look
    at the median of the Gaussians' ``means``.
    """
    positions = torch.stack([camera.position for camera in cameras])  # [V, 3]
    centre = look_at_point(cameras, reach=math.inf)
    if centre is None:
        centre = means.median(dim=0).values
    up = -torch.stack([camera.world_to_camera[1, :3] for camera in cameras]).mean(dim=0)
    up = up / up.norm().clamp(min=1e-6)
    offset = positions - centre
    height = (offset @ up).median()
    flat = offset - (offset @ up)[:, None] * up
    radius = flat.norm(dim=1).median().clamp(min=1e-6)
    first = flat[0] - (flat[0] @ up) * up
    first = first / first.norm().clamp(min=1e-6)
    second = torch.linalg.cross(up, first)
    path = []
    for step in range(count):
        angle = 2 * math.pi * step / count
        around = math.cos(angle) * first + math.sin(angle) * second
        position = centre + height * up + radius * around
        path.append(_look_at(cameras[0], position, centre, up))
    return path


def _look_at(model: Camera, position: Tensor, centre: Tensor, up: Tensor) -> Camera:
    """The ``model`` camera, moved to ``position`` and turned to ``centre``."""
    forward = centre - position
    forward = forward / forward.norm()
    right = torch.linalg.cross(forward, up)
    right = right / right.norm().clamp(min=1e-6)
    rotation = torch.stack([right, torch.linalg.cross(forward, right), forward])
    pose = torch.eye(4)
    pose[:3, :3] = rotation
    pose[:3, 3] = -rotation @ position
    width, height = model.width, model.height
    return Camera(pose, model.fx, model.fy, width / 2, height / 2, width, height)


def _count_frames(path: Path) -> int:
    video = cv2.VideoCapture(str(path))
    count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    video.release()
    return count


def _open(path: Path, width: int, height: int) -> cv2.VideoWriter:
    code = cv2.VideoWriter.fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(path), code, FRAMES_PER_SECOND, (width, height))
    if not writer.isOpened():
        raise InputError(
            f"{path}: OpenCV cannot write MP4 here; install opencv-python-headless from PyPI"
        )
    return writer
