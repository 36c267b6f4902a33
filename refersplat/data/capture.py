"""Posed photos and points, the result of every reader of poses."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from refer3d.runs.errors import InputError
from refer3d.runs.ply import read_colors, read_ply
from refer3d.runs.records import first_few, short
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
    warnings: tuple[str, ...] = ()


def read_vertices(path: Path, remedy: str) -> np.ndarray:  # structured, one row per vertex
    """Reads the vertices of a .ply.

    Raises:
        InputError: The file is absent, no PLY, cut, or has no vertices; the message ends in remedy.
    """
    document = read_ply(path, remedy)
    if "vertex" not in document:
        names = first_few([short(element.name) for element in document.elements]) or "none"
        raise InputError(f"{path}: expected an element 'vertex', got {names}; {remedy}")
    return document["vertex"].data


def read_point_cloud(path: Path) -> PointCloud:
    """Reads positions and colours of a .ply; gray if it has no colours.

    Raises:
        InputError: The file cannot be read or holds no finite points.
    """
    remedy = "export it again, or delete it to start from random points"
    vertices = read_vertices(path, remedy)
    names = {name.lower(): name for name in vertices.dtype.names or ()}
    if missing := [axis for axis in "xyz" if axis not in names]:
        raise InputError(f"{path}: expected x, y and z, got no {missing[0]}; {remedy}")
    positions = np.stack([vertices[names[axis]] for axis in "xyz"], axis=1).astype(np.float64)
    bad = int((~np.isfinite(positions).all(axis=1)).sum())
    if bad or not len(positions):
        got = f"{bad} of {len(positions)} that are not" if bad else "none"
        raise InputError(f"{path}: expected at least one point, all finite, got {got}; {remedy}")
    warnings: list[str] = []
    colors = read_colors(vertices, path, warnings)
    if colors is None:
        warnings.append(f"{path}: the points have no colours, gray is taken")
        colors = np.full(positions.shape, 128, dtype=np.uint8)
    return PointCloud(positions, colors, tuple(warnings))


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
