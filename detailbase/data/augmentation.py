"""Random changes of a cloud, so that the network does not learn scans by heart.

PointGroup's (Jiang et al. 2020), which SPFormer and DetailBase train with.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from detailbase.config import AugmentConfig

ELASTIC = ((0.24, 0.8), (0.8, 3.2))
"""Spacing of the grids of random displacements and what these are multiplied by, in metres. The
published 6 and 40, 20 and 160 are voxels of 2 cm, the first half of the spacing: that code sets so
many nodes over twice the scan's length."""


def augment(
    xyz: Tensor,  # [N, 3]
    rgb: Tensor,  # [N, 3]
    options: AugmentConfig,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor, Tensor]:  # [N, 3], [N, 3], [N, 3]
    """A changed cloud.

    Args:
        xyz: Metres, z up.
        rgb: Colours, -1 to 1.
        options: What to change, how far, and how often.
        rng: Decides.

    Returns:
        places: Where points are for their voxels, bent elastically.
        xyz: Where they are as features: without the bending, as published.
        rgb: Their colours, all shifted alike.
    """
    moved = xyz.numpy() @ transform(options, rng).astype(np.float32)
    places = moved
    if rng.random() < options.elastic:
        for spacing, magnitude in ELASTIC:
            places = places + magnitude * smooth_noise(places, spacing, rng)
    if rng.random() < options.color_chance:
        rgb = rgb + torch.from_numpy(rng.normal(0, options.color, 3)).to(rgb)
    return torch.from_numpy(places), torch.from_numpy(moved), rgb


def transform(options: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """A random linear map [3, 3], to be multiplied from the right."""
    matrix = np.eye(3)
    if rng.random() < options.jitter_chance:
        matrix = matrix + rng.normal(0, options.jitter, (3, 3))
    if rng.random() < options.flip:
        matrix = matrix @ np.diag([-1.0, 1.0, 1.0])
    if rng.random() < options.rotate:
        angle = rng.uniform(0, 2 * np.pi)
        cos, sin = np.cos(angle), np.sin(angle)
        matrix = matrix @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    return matrix


def smooth_noise(
    xyz: np.ndarray,  # [N, 3] float32
    spacing: float,
    rng: np.random.Generator,
) -> np.ndarray:  # [N, 3] float32
    """Random vectors that vary smoothly in space.

    Normal noise on a grid that goes round, each node twice made the mean of the 27 around it, and
    interpolated linearly between nodes. Standard deviation at nodes: 0.11.

    Args:
        xyz: Points.
        spacing: Of the grid, in the points' unit.
        rng: Where the noise comes from.
    """
    places = ((xyz - xyz.min(axis=0)) / spacing).T  # [3, N]
    size = places.max(axis=1).astype(int) + 2
    noise = rng.standard_normal((3, *size), dtype=np.float32)
    for _ in range(2):
        noise = ndimage.uniform_filter(noise, (0, 3, 3, 3), mode="wrap")
    found = [ndimage.map_coordinates(axis, places, np.float32, order=1) for axis in noise]
    return np.stack(found, axis=1)
