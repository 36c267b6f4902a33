"""Augmentation of clouds: PointGroup's (Jiang et al. 2020), as SPFormer and DetailBase use it."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from detailbase.config import AugmentConfig
from detailbase.scans.clouds import Cloud
from detailbase.scans.scan import cut_points

ELASTIC = ((0.24, 0.8), (0.8, 3.2))
"""Spacing of the grids of random displacements, and the factor of these, in metres. The published
6 and 40, 20 and 160 count voxels of 2 cm; the first is half the spacing, because that code sets so
many nodes over twice the scan's length."""

PATCH, PATCHES = 0.4, 50
"""Largest radius of a patch of absent points, in metres, and most patches."""
FEWEST = 100
"""Points that always stay."""


def rescan(cloud: Cloud, options: AugmentConfig, rng: np.random.Generator) -> Cloud:
    """Changes a scan as another scanner would have: density, absent patches, noise, superpoints."""
    kept = np.ones(len(cloud), dtype=bool)
    if options.thin:
        kept &= rng.random(len(cloud)) >= rng.uniform(0, options.thin)
    if options.holes:
        xyz, left = cloud.xyz.numpy(), rng.uniform(0, options.holes) * len(cloud)
        for _ in range(PATCHES):
            centre, radius = xyz[int(rng.integers(len(cloud)))], rng.uniform(0, PATCH)
            patch = kept & (np.square(xyz - centre).sum(axis=1) < radius**2)
            left -= patch.sum()
            if left < 0:
                break
            kept &= ~patch
    if not kept.all() and kept.sum() >= FEWEST:
        cloud = cloud.select(torch.from_numpy(kept))
    if options.noise:
        noise = rng.standard_normal(cloud.xyz.shape, dtype=np.float32)
        moved = cloud.xyz + float(rng.uniform(0, options.noise)) * torch.from_numpy(noise)
        cloud = dataclasses.replace(cloud, xyz=moved)
    if options.resegment and rng.random() < options.resegment:
        cloud = dataclasses.replace(cloud, superpoints=cut_points(cloud.xyz, cloud.rgb))
    return cloud


def augment(
    xyz: Tensor,  # [N, 3]
    rgb: Tensor,  # [N, 3]
    options: AugmentConfig,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor, Tensor, bool]:  # [N, 3], [N, 3], [N, 3]
    """Augments a cloud.

    Args:
        xyz: Positions in metres, z up.
        rgb: Colours, -1 to 1.
        options: Strength and probability of each change.
        rng: Source of the random choices.

    Returns:
        bent: Positions for the voxels, distorted elastically.
        xyz: Positions for the features, without the distortion, as published.
        rgb: Colours, all shifted alike.
        is_mirrored: Whether left and right have changed places.
    """
    matrix = transform(options, rng)
    moved = xyz.numpy() @ matrix.astype(np.float32)
    bent = moved
    if rng.random() < options.elastic:
        for spacing, magnitude in ELASTIC:
            bent = bent + magnitude * smooth_noise(bent, spacing, rng)
    if rng.random() < options.color_chance:
        rgb = rgb + torch.from_numpy(rng.normal(0, options.color, 3)).to(rgb)
    return torch.from_numpy(bent), torch.from_numpy(moved), rgb, bool(np.linalg.det(matrix) < 0)


def transform(options: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """Draws a linear map [3, 3] that is multiplied from the right."""
    matrix = np.eye(3)
    if rng.random() < options.jitter_chance:
        matrix = matrix + rng.normal(0, options.jitter, (3, 3))
    if rng.random() < options.flip:
        matrix = matrix @ np.diag([-1.0, 1.0, 1.0])
    if rng.random() < options.rotate:
        matrix = matrix @ rotation(rng.uniform(0, 2 * np.pi))
    return matrix


def rotation(angle: float) -> np.ndarray:
    """Returns a rotation [3, 3] about the vertical, to be multiplied from the right."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])


def smooth_noise(
    xyz: np.ndarray,  # [N, 3] float32
    spacing: float,
    rng: np.random.Generator,
) -> np.ndarray:  # [N, 3] float32
    """Draws random vectors that vary smoothly in space.

    Normal noise on a periodic grid, averaged twice over the 27 nodes around each, is interpolated
    linearly between nodes. Standard deviation at nodes: 0.11.

    Args:
        xyz: Points.
        spacing: Spacing of the grid, in the points' unit.
        rng: Source of the noise.
    """
    coordinates = ((xyz - xyz.min(axis=0)) / spacing).T  # [3, N]
    size = coordinates.max(axis=1).astype(int) + 2
    noise = rng.standard_normal((3, *size), dtype=np.float32)
    for _ in range(2):
        noise = ndimage.uniform_filter(noise, 3, mode="wrap", axes=(1, 2, 3))
    vectors = [ndimage.map_coordinates(axis, coordinates, np.float32, order=1) for axis in noise]
    return np.stack(vectors, axis=1)
