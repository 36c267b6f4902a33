"""Posed photos and points, the result of every reader of poses."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import plyfile

from refer3d.runs.errors import InputError
from refersplat.data.lens import Lens

_RIGID_TOLERANCE = 1e-3  # several tools write six digits; a mirrored or scaled pose is far outside


@dataclass(frozen=True)
class Shot:
    """One photo with its pose and lens."""

    name: str
    """Path below the image folder, with forward slashes, as in the scene's files."""
    path: Path
    world_to_camera: np.ndarray
    """[4, 4] float64, rigid; x right, y down, z forward."""
    lens: Lens
    where: str
    """File and entry of the pose, for messages."""
    is_test: bool = False
    """Whether the scene's files keep this photo for testing."""


@dataclass(frozen=True)
class PointCloud:
    """Points from structure from motion."""

    positions: np.ndarray
    """[P, 3] float64."""
    colors: np.ndarray
    """[P, 3] uint8."""


def read_vertices(path: Path, remedy: str) -> np.ndarray:  # structured, one row per vertex
    """Reads the vertices of a .ply.

    Raises:
        InputError: The file is absent, no PLY, cut, or has no vertices; the message ends in remedy.
    """
    try:
        # plyfile documents False, but its annotation is inferred from the default, "c".
        document = plyfile.PlyData.read(path, mmap=False)  # pyright: ignore[reportArgumentType]
        return document["vertex"].data
    except (plyfile.PlyParseError, KeyError, ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read as a point cloud ({reason}); {remedy}") from error


@dataclass
class Capture:
    """All photos of a scene."""

    shots: list[Shot]
    points: PointCloud | None = None
    warnings: list[str] = field(default_factory=list)


def rigid(pose: np.ndarray, where: str) -> np.ndarray:  # [4, 4] -> [4, 4]
    """The nearest rigid transform to one with rounding errors.

    Raises:
        InputError: A number is not finite, or the rotation is scaled, sheared or mirrored.
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
            f"{'mirrored' if deviation <= _RIGID_TOLERANCE else 'scaled or sheared'} (determinant "
            f"{np.linalg.det(rotation):.4g}); write poses without scale or mirroring"
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
