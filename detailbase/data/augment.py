"""Random changes of a cloud, so that the network does not learn scans by heart.

PointGroup's (Jiang et al. 2020), which SPFormer and DetailBase train with.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from detailbase.config import AugmentConfig

ELASTIC = ((0.12, 0.8), (0.4, 3.2))
"""Spacing of the random displacements and how far they go, in metres: 6 and 40, 20 and 160 voxels
of 2 cm."""


def transform(options: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """A random linear map [3, 3], to be multiplied from the right."""
    matrix = np.eye(3)
    if options.jitter:
        matrix = matrix + rng.normal(0, options.jitter, (3, 3))
    if rng.random() < options.flip:
        matrix = matrix @ np.diag([-1.0, 1.0, 1.0])
    if options.rotate:
        angle = rng.uniform(0, 2 * np.pi)
        cos, sin = np.cos(angle), np.sin(angle)
        matrix = matrix @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    return matrix


def elastic(
    xyz: np.ndarray,  # [N, 3]
    spacing: float,
    magnitude: float,
    rng: np.random.Generator,
) -> np.ndarray:  # [N, 3]
    """Displacements that vary smoothly in space.

    Normal noise on a grid, averaged twice over 3 x 3 x 3 cells, interpolated between them.

    Args:
        xyz: Points.
        spacing: Of the grid, in the points' unit.
        magnitude: What the noise is multiplied by.
        rng: Where it comes from.
    """
    low = xyz.min(axis=0)
    places = (xyz - low) / spacing + 1
    size = np.ceil(places.max(axis=0)).astype(int) + 2
    noise = rng.standard_normal((3, *size), dtype=np.float32)
    moved = np.empty_like(xyz)
    for axis in range(3):
        smooth = ndimage.uniform_filter(noise[axis], 3, mode="constant")
        smooth = ndimage.uniform_filter(smooth, 3, mode="constant")
        moved[:, axis] = ndimage.map_coordinates(smooth, places.T, order=1) * magnitude
    return moved


def augment(
    xyz: Tensor,  # [N, 3]
    rgb: Tensor,  # [N, 3]
    options: AugmentConfig,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor, Tensor]:  # [N, 3], [N, 3], [N, 3]
    """A changed cloud.

    Returns:
        places: Where points are for their voxels, bent elastically.
        xyz: Where they are as features: without the bending, as published.
        rgb: Their colours, all shifted alike.
    """
    moved = xyz.numpy().astype(np.float64) @ transform(options, rng)
    places = moved
    if rng.random() < options.elastic:
        for spacing, magnitude in ELASTIC:
            places = places + elastic(places, spacing, magnitude, rng)
    shift = rng.normal(0, options.color, 3) if options.color else np.zeros(3)
    return (
        torch.from_numpy(places).float(),
        torch.from_numpy(moved).float(),
        rgb + torch.from_numpy(shift).float(),
    )
