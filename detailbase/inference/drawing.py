"""Pictures of a cloud from above, with the masks of phrases in colours."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from detailbase.scans.scan import ROOM

COLORS = (
    *((230, 60, 50), (40, 110, 230), (250, 190, 20), (40, 170, 90), (160, 70, 200)),
    *((0, 180, 190), (240, 120, 30), (230, 90, 160), (120, 180, 20), (120, 90, 60)),
)
"""RGB of the phrases; they repeat after the last."""
TURN, TILT = np.radians(30), np.radians(50)
"""View of a scan: its turn about the vertical, then the elevation above the horizon."""
RIGHT = np.array([np.cos(TURN), -np.sin(TURN), 0])
AWAY = np.array([np.sin(TURN), np.cos(TURN), 0])
CEILING = 2.1
"""Height in metres above a room's floor from which on points are not drawn."""
STRIP, WALL, SKIRTING = 0.1, 0.3, 0.3
"""Metres: width of the strips in which the near wall is searched, its thickness, and the height of
it that is still drawn."""
STRENGTH = 0.75
"""Share of the phrase's colour in that of a point of its mask."""


def tint(
    colors: np.ndarray,  # [N, 3] uint8
    masks: Sequence[np.ndarray],  # [N] bool each
    first: int = 0,
) -> np.ndarray:  # [N, 3] uint8
    """Tints the points of masks, small masks last; ``first`` is the first mask's color index."""
    result = colors.astype(np.float32)
    for index in sorted(range(len(masks)), key=lambda index: -int(masks[index].sum())):
        color = np.array(COLORS[(first + index) % len(COLORS)], dtype=np.float32)
        result[masks[index]] = (1 - STRENGTH) * result[masks[index]] + STRENGTH * color
    return result.astype(np.uint8)


def occluders(xyz: np.ndarray) -> np.ndarray:  # [N, 3] -> [N] bool
    """Finds the points that hide the inside of a room; none in a scan smaller than a room."""
    if not len(xyz) or np.ptp(xyz[:, :2], axis=0).min() < ROOM:
        return np.zeros(len(xyz), dtype=bool)
    height = xyz[:, 2] - np.quantile(xyz[:, 2], 0.02)
    strip = ((xyz @ RIGHT - (xyz @ RIGHT).min()) / STRIP).astype(int)
    first = np.full(strip.max() + 1, np.inf)
    np.minimum.at(first, strip, xyz @ AWAY)
    is_wall = (xyz @ AWAY < first[strip] + WALL) & (height > SKIRTING)
    return is_wall | (height > CEILING)


def draw_cloud(
    xyz: np.ndarray,  # [N, 3], z up
    colors: np.ndarray,  # [N, 3] uint8
    width: int = 720,
    height: int = 560,
) -> np.ndarray:  # [H, W, 3] uint8
    """Draws the points at an angle from above, near ones before far ones, on white."""
    right, away = xyz @ RIGHT, xyz @ AWAY
    up = xyz[:, 2] * np.cos(TILT) + away * np.sin(TILT)
    near = xyz[:, 2] * np.sin(TILT) - away * np.cos(TILT)
    spans = (np.ptp(right), np.ptp(up))
    scale = min((width - 20) / max(spans[0], 1e-3), (height - 20) / max(spans[1], 1e-3))
    x = (width / 2 + (right - (right.min() + right.max()) / 2) * scale).astype(int)
    y = (height / 2 - (up - (up.min() + up.max()) / 2) * scale).astype(int)
    # Sparse points are drawn larger, so that surfaces close.
    filled = width * height * 0.5
    radius = int(np.clip(np.sqrt(filled / max(len(xyz), 1)) / 1.5, 3, 6))
    nearest = np.full(height * width, -np.inf)
    owner = np.full(height * width, -1)
    offsets = [(x, y) for x in range(-radius, radius + 1) for y in range(-radius, radius + 1)]
    # A point's centre counts as nearer than the rims of its neighbours, so that none is lost.
    for dx, dy in sorted(offsets, key=lambda at: -max(map(abs, at))):
        columns, rows = np.clip(x + dx, 0, width - 1), np.clip(y + dy, 0, height - 1)
        place = rows * width + columns
        depth = near - max(abs(dx), abs(dy)) / scale
        np.maximum.at(nearest, place, depth)
        is_first = nearest[place] == depth
        owner[place[is_first]] = np.flatnonzero(is_first)
    image = np.full((height * width, 3), 255, dtype=np.uint8)
    image[owner >= 0] = colors[owner[owner >= 0]]
    return image.reshape(height, width, 3)


def draw_masks(
    xyz: np.ndarray,  # [N, 3]
    colors: np.ndarray,  # [N, 3] uint8
    sentence: str,
    phrases: Sequence[str],
    masks: Sequence[np.ndarray],  # [N] bool each
) -> np.ndarray:  # [H, W, 3] uint8
    """Draws the scan, beside it the same with tinted masks, and a legend.

    Points that hide the inside of a room are left out, unless they belong to a mask.
    """
    kept = ~occluders(xyz) | np.any([np.zeros(len(xyz), dtype=bool), *masks], axis=0)
    xyz, colors, masks = xyz[kept], colors[kept], [mask[kept] for mask in masks]
    pair = [draw_cloud(xyz, colors), draw_cloud(xyz, tint(colors, masks))]
    image = np.concatenate(pair, axis=1)
    lines = [(sentence, (30, 30, 30))]
    lines += [(phrase, COLORS[index % len(COLORS)]) for index, phrase in enumerate(phrases)]
    legend = np.full((14 + 26 * len(lines), image.shape[1], 3), 255, dtype=np.uint8)
    for row, (text, color) in enumerate(lines):
        place = (12, 24 + 26 * row)
        font, size = cv2.FONT_HERSHEY_SIMPLEX, 0.6
        plain = text.encode("ascii", "replace").decode()
        cv2.putText(legend, plain, place, font, size, color, 1 + (row > 0), cv2.LINE_AA)
    return np.concatenate([image, legend])
