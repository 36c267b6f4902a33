"""Colours of surfaces between their vertices: textures, and points on large faces."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

COARSE, FINER = 1 / 40, 3.75
"""Part of a scan's extent: faces with a side above it, weighted by area, make a mesh coarse; and
how many times closer the points lie that fill it. In 6 m that is 15 cm and 4 cm; ScanNet's meshes
have sides of 3 to 8 cm."""
MOST = 2_000_000
"""Points that are added at most."""


def read_texture(path: Path) -> np.ndarray | None:
    """Reads an image as [H, W, 3] uint8; None if it is absent or broken."""
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError:
        return None
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    return None if image is None else image[:, :, ::-1]


def sample_texture(image: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Reads the nearest pixels.

    Args:
        image: [H, W, 3] uint8.
        uv: [N, 2], the lower left corner at 0; the image is repeated beyond 0 to 1.

    Returns:
        [N, 3] uint8.
    """
    height, width = image.shape[:2]
    u, v = np.nan_to_num(np.asarray(uv, dtype=np.float64)).T
    columns, rows = np.floor((u % 1) * width), np.floor((1 - v) % 1 * height)
    rows = np.where(v == 0, height - 1, rows)
    columns = np.where(u == 1, width - 1, columns)
    return image[rows.astype(int).clip(0, height - 1), columns.astype(int).clip(0, width - 1)]


def fill_faces(
    vertices: np.ndarray,  # [N, 3]
    faces: np.ndarray,  # [F, 3]
    coarse: float,
) -> tuple[np.ndarray, np.ndarray]:  # [M], [M, 3]
    """Spreads points evenly over the faces of a coarse mesh.

    Args:
        vertices: Positions.
        faces: Triangles.
        coarse: Side of a face, weighted by area, above which the mesh counts as coarse.

    Returns:
        face: Each point's face; none if the mesh is fine enough.
        weights: Its weights of the face's corners.
    """
    none = np.zeros(0, dtype=np.int64), np.zeros((0, 3))
    if not len(faces) or not coarse > 0:
        return none
    corners = vertices[faces]
    sides = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(axis=1)
    crossed = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = np.linalg.norm(crossed, axis=1)
    order = np.argsort(sides)
    middle = np.searchsorted(areas[order].cumsum(), areas.sum() / 2)
    if sides[order[min(middle, len(order) - 1)]] <= coarse:
        return none
    parts = np.ceil(sides * FINER / coarse).astype(np.int64).clip(1, 1000)
    while ((parts + 1) * (parts + 2) // 2).sum() > MOST and parts.max() > 1:
        parts = np.maximum(parts // 2, 1)
    chosen, weights = [], []
    for part in np.unique(parts):
        rows = np.flatnonzero(parts == part)
        i, j = (axis.ravel() for axis in np.meshgrid(*[np.arange(part + 1)] * 2, indexing="ij"))
        i, j = i[i + j <= part], j[i + j <= part]
        grid = np.stack([i, j, part - i - j], axis=1) / part
        chosen.append(np.repeat(rows, len(grid)))
        weights.append(np.tile(grid, (len(rows), 1)))
    return np.concatenate(chosen), np.concatenate(weights)
