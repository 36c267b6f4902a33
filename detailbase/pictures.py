"""A cloud from above, with what phrases name in their colours."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

COLORS = (
    *((230, 60, 50), (40, 110, 230), (250, 190, 20), (40, 170, 90), (160, 70, 200)),
    *((0, 180, 190), (240, 120, 30), (230, 90, 160), (120, 180, 20), (120, 90, 60)),
)
"""RGB of the phrases, again from the first after the last."""
TURN, TILT = np.radians(30), np.radians(50)
"""How a scan is seen: turned about the vertical, then from so far above the horizon."""
STRENGTH = 0.75
"""How much of a marked point's colour is its phrase's."""


def marked(
    colors: np.ndarray,  # [N, 3] uint8
    masks: Sequence[np.ndarray],  # [N] bool each
    chosen: Sequence[int],
) -> np.ndarray:  # [N, 3] uint8
    """Colours in which masks show; ``chosen`` gives each mask's place in ``COLORS``."""
    result = colors.astype(np.float32)
    for mask, index in zip(masks, chosen, strict=True):
        color = np.array(COLORS[index % len(COLORS)], dtype=np.float32)
        result[mask] = (1 - STRENGTH) * result[mask] + STRENGTH * color
    return result.astype(np.uint8)


def draw_cloud(
    xyz: np.ndarray,  # [N, 3], z up
    colors: np.ndarray,  # [N, 3] uint8
    width: int = 720,
    height: int = 560,
) -> np.ndarray:  # [H, W, 3] uint8
    """The points seen at an angle from above, near ones before far ones, on white."""
    cos, sin = np.cos(TURN), np.sin(TURN)
    right = xyz @ np.array([cos, -sin, 0])
    away = xyz @ np.array([sin, cos, 0])
    up = xyz[:, 2] * np.cos(TILT) + away * np.sin(TILT)
    near = xyz[:, 2] * np.sin(TILT) - away * np.cos(TILT)
    spans = (np.ptp(right), np.ptp(up))
    scale = min((width - 20) / max(spans[0], 1e-3), (height - 20) / max(spans[1], 1e-3))
    x = (width / 2 + (right - (right.min() + right.max()) / 2) * scale).astype(int)
    y = (height / 2 - (up - (up.min() + up.max()) / 2) * scale).astype(int)
    # Points grow with the space between them, so that surfaces close.
    filled = width * height * 0.5
    radius = int(np.clip(np.sqrt(filled / max(len(xyz), 1)) / 2, 2, 6))
    order = np.argsort(near)
    image = np.full((height, width, 3), 255, dtype=np.uint8)
    for dx in range(-radius, radius + 1):
        for dy in range(-radius, radius + 1):
            columns = np.clip(x[order] + dx, 0, width - 1)
            rows = np.clip(y[order] + dy, 0, height - 1)
            if (dx, dy) == (0, 0):
                last = (rows, columns)
            image[rows, columns] = colors[order]
    image[last] = colors[order]
    return image


def draw_answer(
    xyz: np.ndarray,  # [N, 3]
    colors: np.ndarray,  # [N, 3] uint8
    sentence: str,
    phrases: Sequence[str],
    masks: Sequence[np.ndarray],  # [N] bool each
) -> np.ndarray:  # [H, W, 3] uint8
    """The scan, the same with its phrases marked, and which colour is which."""
    pair = [
        draw_cloud(xyz, colors),
        draw_cloud(xyz, marked(colors, masks, range(len(masks)))),
    ]
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
