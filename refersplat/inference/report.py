"""One picture of the best and the worst cases."""

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
"""How many of the best and of the worst."""
PANEL = 400
"""Width of one picture of a row."""


def draw_report(path: Path, cases: Sequence[Sample], trained: TrainedScene) -> None:
    """Writes the page: in each row the photo, the truth and the answer."""
    ranked = sorted((case for case in cases if not case.is_empty), key=lambda case: case.iou)
    worst, best = _distinct(ranked), _distinct(ranked[::-1])
    rows: list[Image.Image] = []
    for title, chosen in (("Best", best), ("Worst", worst)):
        if chosen:
            rows.append(_title(f"{title} cases"))
            rows += [_row(case, trained) for case in chosen]
    if not rows:
        rows = [_title("No object is seen in any test view")]
    page = stack(rows)
    with atomic_write(path) as file:
        page.save(file, format="PNG")


def _distinct(ranked: Sequence[Sample]) -> list[Sample]:
    """The first cases, of different objects as far as there are."""
    first = {case.category: case for case in reversed(ranked)}
    different = [case for case in ranked if first[case.category] is case]
    others = [case for case in ranked if first[case.category] is not case]
    return [*different, *others][:ROWS]


@torch.inference_mode()
def _row(case: Sample, trained: TrainedScene) -> Image.Image:
    view = case.view
    asked = trained.respond([case.sentence])
    (seen,), (threshold,) = trained.seen(asked, trained.view(view.camera)), asked.thresholds
    image = view.image()
    panels = [
        (to_pixels(image), f"photo {view.name}"),
        (draw_overlay(image, case.target.mask()), "truth"),
        (draw_overlay(image, seen >= threshold), f"answer, IoU {case.iou:.2f}"),
    ]
    height = round(PANEL * image.shape[1] / image.shape[2])
    page = Image.new("RGB", (3 * PANEL + 4 * MARGIN, height + 3 * MARGIN), PAPER)
    draw = ImageDraw.Draw(page)
    for index, (pixels, label) in enumerate(panels):
        left = MARGIN + index * (PANEL + MARGIN)
        picture = Image.fromarray(pixels).resize((PANEL, height), Image.Resampling.LANCZOS)
        page.paste(picture, (left, 2 * MARGIN + 2))
        draw.text((left, 0), label, fill=FAINT, font=font(13))
    return add_caption(np.asarray(page), case.sentence, size=20)


def _title(text: str) -> Image.Image:
    page = Image.new("RGB", (3 * PANEL + 4 * MARGIN, 44), PAPER)
    ImageDraw.Draw(page).text((MARGIN, 8), text, fill=INK, font=font(24))
    return page
