"""Reports of an evaluation: a picture of the best and the worst samples, and a page with all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from refer3d.page import Picture, Table, read_curves, write_page
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
from refersplat.metrics import METRICS

ROWS = 4
"""Rows of the best and of the worst samples."""
PANEL = 400
"""Width of one picture of a row."""
PICTURES = 60
"""Pictures of the worst samples, and of the best, in the page."""


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


def write_report(
    path: Path,
    samples: Sequence[Sample],
    trained: TrainedScene,
    results: Mapping[str, Any],
    folder: Path,
) -> None:
    """Writes the page: scores, samples with their masks, curves of the training, options.

    Args:
        path: The file.
        samples: All samples; the worst and the best get pictures.
        trained: Draws their masks.
        results: Content of ``results.json``.
        folder: That of the run, with the curves.
    """
    ranked = sorted(samples, key=lambda sample: sample.iou)
    pictures = _pictures([*ranked[:PICTURES], *ranked[PICTURES:][-PICTURES:]], trained)
    columns = ("mask", "view", "object", "sentence", "answer", "IoU", "IoU at 0.5", "amodal IoU")
    rows = [
        (
            pictures.get(id(sample)),
            *(sample.view.name, sample.category, sample.sentence),
            "the field" if sample.groups is None else _names(sample.groups, trained),
            *(sample.iou, sample.iou_at_half, sample.amodal_iou),
        )
        for sample in ranked
    ]
    per_object = [
        (name, *(scores[metric] for metric in METRICS), scores["cases"])
        for name, scores in results["per_object"].items()
    ]
    tables = [
        Table("Scores", ("score", "value"), list(results["metrics"].items())),
        Table("Objects", ("object", *METRICS, "samples"), per_object),
        Table("Samples: answers in orange, missed parts outlined in blue", columns, rows),
    ]
    shown = ("metrics", "per_object", "per_sentence", "per_view", "cases", "queries")
    options = {name: value for name, value in results.items() if name not in shown}
    write_page(path, folder.absolute().name, tables, options, read_curves(folder))


def _names(groups: Sequence[int], trained: TrainedScene) -> str:
    return ", ".join(trained.groups[group] for group in groups) or "nothing"


@torch.inference_mode()
def _pictures(samples: Sequence[Sample], trained: TrainedScene) -> dict[int, Picture]:
    """The photo of each sample with its mask, by the sample's id; a view is blended once."""
    pictures = {}
    for view in {id(sample.view): sample.view for sample in samples}.values():
        blend = trained.blend(view.camera)
        for sample in samples:
            if sample.view is not view:
                continue
            responses = trained.respond([sample.sentence], view.camera)
            mask = (trained.visible(responses, blend)[0] >= responses.thresholds[0]).cpu()
            # What the overlay outlines as hidden is here what the mask misses.
            overlay = draw_overlay(view.image(), mask, mask | sample.target.mask())
            pictures[id(sample)] = Picture.of(overlay)
    return pictures


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
