"""Levels and scales the world of a model: z up, the middle of the view at the origin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MEDIAN_DEPTH = 4.0
"""Median distance of points before the cameras after scaling, in scene units: 20 near planes."""
_ROLLED = 0.5  # sine of the roll above which a photo was held upright or askew
_FLAT = 0.02  # variance of sideways axes in their second direction, over that in their first


@dataclass(frozen=True)
class Similarity:
    """Maps points: ``scale * rotation @ p + translation``."""

    scale: float
    rotation: np.ndarray
    """[3, 3]"""
    translation: np.ndarray
    """[3]"""

    def __call__(self, points: np.ndarray) -> np.ndarray:  # [..., 3] -> [..., 3]
        """Maps points."""
        return self.scale * points @ self.rotation.T + self.translation


def find_up(rotations: np.ndarray) -> np.ndarray:  # [V, 3, 3] -> [3]
    """Estimates the direction against gravity from how people hold cameras: without roll.

    The sideways axes of level cameras are horizontal, whether they look up or down, so up is the
    direction of their least variance. Where they all point the same way it is the mean of the
    cameras' own up directions.

    Args:
        rotations: World to camera, x right, y down, z forward.
    """
    sideways, mean = rotations[:, 0], -rotations[:, 1].mean(axis=0)
    mean = mean / max(np.linalg.norm(mean), 1e-12)
    # Steep views from one side have their mean far from up; photos held upright spoil the variance.
    starts = [mean, _flattest(sideways, mean)]
    ups = [_flattest(sideways[np.abs(sideways @ start) < _ROLLED], start) for start in starts]
    costs = [np.minimum(np.abs(sideways @ up), _ROLLED).sum() for up in ups]
    return ups[int(np.argmin(costs))]


def _flattest(axes: np.ndarray, start: np.ndarray) -> np.ndarray:  # [V, 3], [3] -> [3]
    """The direction of the axes' least variance on the side of ``start``; it where they are one."""
    values, vectors = np.linalg.eigh(axes.T @ axes / max(len(axes), 1))
    if values[1] < _FLAT * values[2] or len(axes) < 3:
        return start
    return vectors[:, 0] * (1.0 if vectors[:, 0] @ start >= 0 else -1.0)


def find_center(
    rotations: np.ndarray,  # [V, 3, 3]
    positions: np.ndarray,  # [V, 3]
    points: np.ndarray,  # [P, 3]
) -> np.ndarray:  # [3]
    """The point nearest to all optical axes, or the points' median where cameras look outwards."""
    axes = rotations[:, 2]
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    center = np.linalg.pinv(across.sum(axis=0), rcond=1e-6) @ (across @ positions[:, :, None]).sum(
        0
    )
    depths = ((center[:, 0] - positions) * axes).sum(axis=1)
    reach = sum(
        np.linalg.norm(p - positions.mean(axis=0), axis=1).max() for p in (points, positions)
    )
    if (depths > 0).mean() > 0.9 and np.median(depths) < reach:
        return center[:, 0]
    return np.median(points, axis=0)


def level(
    rotations: np.ndarray,  # [V, 3, 3] world to camera
    positions: np.ndarray,  # [V, 3]
    points: np.ndarray,  # [P, 3]
) -> Similarity:
    """The map to a world with z up, y along the mean view, and the origin at the scene's middle.

    Photos do not tell the unit: the points' median depth becomes ``MEDIAN_DEPTH``.
    """
    up = find_up(rotations)
    forward = rotations[:, 2].mean(axis=0)
    forward = forward - (forward @ up) * up
    if np.linalg.norm(forward) < 1e-6:  # all look straight down, or around in a circle
        forward = np.cross(up, np.eye(3)[np.abs(up).argmin()])
    forward /= np.linalg.norm(forward)
    rotation = np.stack([np.cross(forward, up), forward, up])
    depths = points @ rotations[:, 2].T - (positions * rotations[:, 2]).sum(axis=1)
    scale = MEDIAN_DEPTH / float(np.median(depths[depths > 0]))
    center = find_center(rotations, positions, points)
    return Similarity(scale, rotation, -scale * rotation @ center)
