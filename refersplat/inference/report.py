"""A page with the best and the worst evaluation samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from refer3d.runs.files import atomic_write
from refersplat.inference.overlay import (
    FAINT,
    INK,
    MARGIN,
    PAPER,
    add_caption,
    draw_overlay,
    font,
    stack,
    to_pixels,
)
from refersplat.inference.samples import Sample
from refersplat.inference.trained_scene import TrainedScene

ROWS = 4
"""Rows of the best and of the worst samples."""
PANEL = 400
"""Width of one picture of a row."""


def draw_report(path: Path, samples: Sequence[Sample], trained: TrainedScene) -> None:
    """Writes the page; each row shows the photo, the true mask and the predicted one."""
    ranked = sorted((s for s in samples if not s.is_empty), key=lambda sample: sample.iou)
    rows = []
    for title, order in (("Best", ranked[::-1]), ("Worst", ranked)):
        rows += [_title(f"{title} samples"), *(_row(s, trained) for s in _distinct(order))]
    if not ranked:
        rows = [_title("No object is visible in any test view")]
    with atomic_write(path) as file:
        stack(rows).save(file, format="PNG")


def _distinct(ranked: Sequence[Sample]) -> list[Sample]:
    """The first samples, of different objects as far as possible."""
    first = {sample.category: sample for sample in reversed(ranked)}
    return sorted(ranked, key=lambda sample: first[sample.category] is not sample)[:ROWS]


@torch.inference_mode()
def _row(sample: Sample, trained: TrainedScene) -> Image.Image:
    image, mask = sample.view.image(), trained.mask(sample.sentence, sample.view.camera)
    panels = [
        (to_pixels(image), f"photo {sample.view.name}"),
        (draw_overlay(image, sample.target.mask()), "truth"),
        (draw_overlay(image, mask), f"prediction, IoU {sample.iou:.2f}"),
    ]
    height = round(PANEL * image.shape[1] / image.shape[2])
    page = Image.new("RGB", (3 * PANEL + 4 * MARGIN, height + 3 * MARGIN), PAPER)
    draw = ImageDraw.Draw(page)
    for index, (pixels, label) in enumerate(panels):
        left = MARGIN + index * (PANEL + MARGIN)
        picture = Image.fromarray(pixels).resize((PANEL, height), Image.Resampling.LANCZOS)
        page.paste(picture, (left, 2 * MARGIN + 2))
        draw.text((left, 0), label, fill=FAINT, font=font(13))
    return add_caption(np.asarray(page), sample.sentence, size=20)


def _title(text: str) -> Image.Image:
    page = Image.new("RGB", (3 * PANEL + 4 * MARGIN, 44), PAPER)
    ImageDraw.Draw(page).text((MARGIN, 8), text, fill=INK, font=font(24))
    return page
