"""Masks in COCO's format, which annotation tools read."""

from __future__ import annotations

from typing import Any

import numpy as np


def encode_mask(mask: np.ndarray) -> dict[str, Any]:  # [H, W] bool
    """Run lengths of a mask, column by column, beginning with the background."""
    pixels = np.concatenate([[False], mask.flatten(order="F")])
    changes = np.flatnonzero(np.diff(pixels))
    counts = np.diff(np.concatenate([[0], changes, [mask.size]]))
    return {"size": list(mask.shape), "counts": counts.tolist()}


def annotation(number: int, image: int, category: int, mask: np.ndarray) -> dict[str, Any]:
    """One mask [H, W]; its box is x, y, width, height in pixels."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = [0, 0, 0, 0]
    if len(rows):
        box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "segmentation": encode_mask(mask),
        "area": int(mask.sum()),
        "bbox": [int(value) for value in box],
        "iscrowd": 1,  # COCO's word for run lengths instead of polygons
    }
