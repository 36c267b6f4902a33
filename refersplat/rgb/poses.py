"""Refinement of the training photos' poses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from refer3d.runs.states import Array, load_state, save_state
from refersplat.cameras import Camera
from refersplat.data import Scene, View
from refersplat.ops.adam import adam_step

POSES_FILE = "refined_poses.pt"
FORMAT = 1
SCHEMA = {"world_to_camera": {...: {"given": Array((4, 4)), "refined": Array((4, 4))}}}


def moved(
    camera: Camera,
    motion: Tensor,  # [6]
    extent: float,
) -> Camera:
    """The camera after a small motion; differentiable in ``motion``.

    Args:
        camera: The camera before.
        motion: Rotation about its centre as axis times angle, in radians, and the shift of the
            centre in units of ``extent``, both along the world's axes.
        extent: Size of the scene.
    """
    pose = camera.world_to_camera.to(motion)
    x, y, z = motion[:3].unbind()
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).view(3, 3)
    rotation = pose[:3, :3] @ torch.linalg.matrix_exp(-cross)  # [3, 3]
    position = extent * motion[3:] - pose[:3, :3].T @ pose[:3, 3]
    upper = torch.cat([rotation, -(rotation @ position)[:, None]], dim=1)
    return replace(camera, world_to_camera=torch.cat([upper, pose[3:]]))


@dataclass
class Motions:
    """Motions of the training cameras, and the moments of their gradients.

    Their mean stays zero, since photos do not tell where the world lies.
    """

    values: Tensor
    """[V, 6], see :func:`moved`."""
    first: Tensor
    """[V, 6] running means of the gradients."""
    second: Tensor
    """[V, 6] running means of the squared gradients."""
    steps: list[int]
    """Number of steps of each camera."""

    @classmethod
    def start(cls, count: int, device: torch.device | str) -> Motions:
        """Makes motions of zero."""
        values, first, second = torch.zeros(3, count, 6, device=device).unbind()
        return cls(values, first, second, [0] * count)

    def to(self, device: torch.device | str) -> Motions:
        """The same on ``device``."""
        values, first, second = (t.to(device) for t in (self.values, self.first, self.second))
        return Motions(values, first, second, self.steps)

    def leaf(self, row: int) -> Tensor:  # [6]
        """The motion of one camera, as a leaf of autograd."""
        return self.values[row].clone().requires_grad_()

    def step(self, row: int, gradient: Tensor, rate: float) -> None:
        """Moves one camera against its gradient by Adam."""
        self.steps[row] += 1
        tensors = (self.values, self.first, self.second)
        values, first, second = (tensor[row : row + 1] for tensor in tensors)
        rates = gradient.new_full((6,), rate)
        adam_step(values, gradient[None], first, second, rates, self.steps[row])
        self.values -= self.values.mean(dim=0)


def save_poses(folder: Path, views: Sequence[View], motions: Motions, extent: float) -> None:
    """Writes the refined poses of training views into a run's folder."""
    poses = {}
    for view, motion in zip(views, motions.values.cpu(), strict=True):
        refined = moved(view.camera, motion, extent).world_to_camera
        poses[view.name] = {"given": view.camera.world_to_camera, "refined": refined}
    save_state(folder / POSES_FILE, {"format": FORMAT, "world_to_camera": poses})


def with_refined_poses(scene: Scene, folder: Path) -> Scene:
    """The scene with the poses that a run has refined; the same scene if it has refined none.

    Views with other poses than those that the run was given stay as they are.

    Raises:
        InputError: The file is broken.
    """
    path = folder / POSES_FILE
    if not path.exists():
        return scene
    poses = load_state(path, FORMAT, SCHEMA, "train into a new folder")["world_to_camera"]
    views = {view.name: _refined(view, poses.get(view.name)) for view in scene.views}
    lists = (scene.views, scene.train, scene.test)
    every, train, test = ([views[view.name] for view in part] for part in lists)
    return replace(scene, views=every, train=train, test=test)


def _refined(view: View, pose: Mapping[str, Tensor] | None) -> View:
    if pose is None or not torch.equal(view.camera.world_to_camera, pose["given"]):
        return view
    return replace(view, camera=replace(view.camera, world_to_camera=pose["refined"]))
