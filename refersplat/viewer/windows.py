"""Browser windows as cameras."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from refersplat.cameras import Camera, look_at_point


def pose_of(camera: Camera) -> dict[str, np.ndarray]:
    """Camera to world, as viser takes it: wxyz and position."""
    turn = Rotation.from_matrix(camera.world_to_camera[:3, :3].T.cpu().numpy())
    return {"wxyz": turn.as_quat()[[3, 0, 1, 2]], "position": camera.position.cpu().numpy()}


def camera_of(window: Any, height: int = 240) -> Camera:
    """A window as a camera of some pixels' height: the viewpoint of "left", or of a lasso.

    Args:
        window: The camera of a client of viser's.
        height: Height of the image in pixels.
    """
    pose = torch.eye(4)
    rotation = Rotation.from_quat(np.roll(window.wxyz, -1)).as_matrix().T
    pose[:3, :3] = torch.from_numpy(rotation)
    pose[:3, 3] = torch.from_numpy(-rotation @ window.position)
    focal = height / 2 / math.tan(window.fov / 2)
    width = round(height * window.aspect)
    return Camera(pose, focal, focal, width / 2, height / 2, width, height)


def field_of_view(camera: Camera) -> float:
    """Vertical field of view in radians."""
    return 2 * math.atan(camera.height / 2 / camera.fy)


def go_to(client: Any, camera: Camera) -> None:
    """Takes a client's window to a camera, without its roll: the scene stays upright."""
    position = camera.position.cpu().numpy()
    ahead = camera.world_to_camera[2, :3].cpu().numpy()
    window = client.camera
    reach = float(np.linalg.norm(window.look_at - window.position))
    with client.atomic():
        window.position = position
        window.look_at = position + reach * ahead  # after the position, which moves it along
        window.fov = field_of_view(camera)


def turn(client: Any, up: np.ndarray, angle: float) -> None:
    """Turns a client's window around what it looks at, by an angle in radians."""
    window, middle = client.camera, np.array(client.camera.look_at)
    rotation = Rotation.from_rotvec(angle * np.asarray(up) / np.linalg.norm(up))
    with client.atomic():
        window.position = middle + rotation.apply(window.position - middle)
        window.look_at = middle


def first_place(
    cameras: Mapping[str, Camera],
    means: Tensor,  # [N, 3]
) -> tuple[np.ndarray, np.ndarray]:
    """Position of the first photo, and the point that the cameras look at."""
    on_cpu = [camera.to("cpu") for camera in cameras.values()]
    target = look_at_point(on_cpu, float("inf"))
    middle = means.cpu().median(dim=0).values
    return on_cpu[0].position.numpy(), (middle if target is None else target).numpy()
