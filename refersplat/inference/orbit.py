"""A flight around the scene, as a video."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Sequence
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
def film(
    path: Path,
    gaussians: Gaussians,
    cameras: Sequence[Camera],
    frames: int,
    background: Tensor,  # [3]
    trained: TrainedScene | None = None,
    sentence: str = "",
) -> None:
    """Writes an MP4 of a flight around what the cameras look at, closed so that it can loop.

    Args:
        path: Of the video.
        gaussians: The scene.
        cameras: The flight keeps to their distance and height.
        frames: How many pictures.
        background: Behind the Gaussians.
        trained: Marks what the sentence means.
        sentence: Shown below.
    """
    background = background.to(gaussians.means)
    asked = trained.respond([sentence]) if trained is not None else None
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.stem}.{os.getpid()}.mp4")
    writer = None
    try:
        with Progress("orbit", frames) as progress:
            for camera in circle(cameras, frames, gaussians.means.cpu()):
                image = render(gaussians, camera, background=background).color.clamp(0, 1)
                if asked is not None:
                    (threshold,) = asked.thresholds
                    (seen,) = trained.seen(asked, trained.view(camera))
                    (whole,) = trained.amodal(asked, camera)
                    marked = draw_overlay(image, seen >= threshold, whole >= threshold)
                    picture = np.asarray(add_caption(marked, sentence))
                else:
                    pixels, factor = to_pixels(image), enlargement(camera.width)
                    picture = cv2.resize(
                        pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC
                    )
                picture = _even(picture)
                if writer is None:
                    writer = _open(draft, picture.shape[1], picture.shape[0])
                writer.write(np.ascontiguousarray(picture[..., ::-1]))
                progress.advance()
        writer.release()
        if _count_frames(draft) != frames:  # OpenCV does not say when the disk is full
            raise OSError(errno.EIO, "cannot be written whole; is the disk full?", str(path))
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def circle(
    cameras: Sequence[Camera],
    count: int,
    means: Tensor,  # [N, 3]
) -> list[Camera]:
    """Cameras on a circle around the point that the given ones look at.

    Where they have none, they look at the middle of the scene's Gaussians ``means``.
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
    model = cameras[0]
    path = []
    for step in range(count):
        angle = 2 * math.pi * step / count
        around = math.cos(angle) * first + math.sin(angle) * second
        position = centre + height * up + radius * around
        path.append(_looking(model, position, centre, up))
    return path


def _looking(model: Camera, position: Tensor, at: Tensor, up: Tensor) -> Camera:
    forward = at - position
    forward = forward / forward.norm()
    right = torch.linalg.cross(forward, up)
    right = right / right.norm().clamp(min=1e-6)
    rotation = torch.stack([right, torch.linalg.cross(forward, right), forward])
    pose = torch.eye(4)
    pose[:3, :3] = rotation
    pose[:3, 3] = -rotation @ position
    return Camera(
        pose,
        model.fx,
        model.fy,
        model.width / 2,
        model.height / 2,
        model.width,
        model.height,
    )


def _even(picture: np.ndarray) -> np.ndarray:
    """MPEG-4 wants even sides."""
    height, width = (side // 2 * 2 for side in picture.shape[:2])
    return picture[:height, :width]


def _count_frames(path: Path) -> int:
    video = cv2.VideoCapture(str(path))
    count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    video.release()
    return count


def _open(path: Path, width: int, height: int) -> cv2.VideoWriter:
    code = cv2.VideoWriter_fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(path), code, FRAMES_PER_SECOND, (width, height))
    if not writer.isOpened():
        raise InputError(
            f"{path}: OpenCV cannot write MP4 here; install opencv-python-headless from PyPI"
        )
    return writer
