"""Posed photos as the readers of COLMAP and transforms.json hand them on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from refer3d.runs.errors import InputError
from refersplat.data.lens import Lens

_RIGID_TOLERANCE = 1e-3  # several tools write six digits; a mirrored or scaled pose is far outside


@dataclass(frozen=True)
class Shot:
    """One photo: where its file lies, where its camera stood, through which lens."""

    name: str
    """Path below the image folder, with forward slashes, as the scene's files write it."""
    path: Path
    world_to_camera: np.ndarray
    """[4, 4] float64, rigid; x right, y down, z forward."""
    lens: Lens
    where: str
    """What to name in a message about this photo's pose or lens."""
    is_test: bool = False
    """The scene's files say that this photo is for testing."""


@dataclass(frozen=True)
class PointCloud:
    """What structure from motion left beside the poses."""

    positions: np.ndarray
    """[P, 3] float64."""
    colors: np.ndarray
    """[P, 3] uint8."""


@dataclass
class Capture:
    """All photos of a scene."""

    shots: list[Shot]
    points: PointCloud | None = None
    warnings: list[str] = field(default_factory=list)


def rigid(pose: np.ndarray, where: str) -> np.ndarray:  # [4, 4] -> [4, 4]
    """The nearest rigid transform, refusing what is not one up to rounding.

    Raises:
        InputError: If a number is not finite or the rotation is scaled, sheared or mirrored.
    """
    if not np.isfinite(pose).all():
        raise InputError(
            f"{where}: the pose must be finite numbers, got {pose[:3].ravel().tolist()}; "
            "leave this image out or register it again"
        )
    rotation = pose[:3, :3]
    deviation = float(np.abs(rotation @ rotation.T - np.eye(3)).max())
    if deviation > _RIGID_TOLERANCE or np.linalg.det(rotation) < 0:
        raise InputError(
            f"{where}: the pose must be a rotation and a translation, got a 3x3 part that is "
            f"{'mirrored' if deviation <= _RIGID_TOLERANCE else 'scaled or sheared'} "
            f"(determinant {np.linalg.det(rotation):.4g}, off by {deviation:.3g}); "
            "write poses without scale or mirroring"
        )
    if not np.allclose(pose[3], [0, 0, 0, 1], atol=_RIGID_TOLERANCE):
        raise InputError(
            f"{where}: the pose's last row must be 0 0 0 1, got {pose[3].tolist()}; "
            "write it row by row"
        )
    left, _, right = np.linalg.svd(rotation)
    result = np.eye(4)
    result[:3, :3] = left @ right
    result[:3, 3] = pose[:3, 3]
    return result
