"""Contact sheets: each object's mask in some photos, the least certain first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw

from refer3d.runs.files import atomic_write
from refersplat.data.annotations import MaskFile
from refersplat.data.images import decode
from refersplat.inference.overlay import FAINT, INK, MARGIN, PAPER, draw_overlay, font, stack, wrap
from refersplat.masks.records import Masked
from refersplat.masks.sentences import Subject

COLUMNS = 6
ROWS = 12
"""Objects of a sheet."""
CELL = 240
"""Width of a photo."""
_DRAWN = 480  # width at which masks are drawn


def write_sheets(
    folder: Path,
    subjects: Sequence[Subject],
    photos: Mapping[str, Path],
    masks: Mapping[str, Mapping[str, Masked]],
    mask_folder: Path,
) -> list[Path]:
    """Writes ``sheet_01.jpg`` and so on; returns their paths.

    Args:
        folder: Folder of the sheets.
        subjects: The objects, one a row.
        photos: Photo of each view.
        masks: By object and view.
        mask_folder: Folder of the masks' files.
    """
    paths = []
    for number, start in enumerate(range(0, len(subjects), ROWS), 1):
        rows = []
        for subject in subjects[start : start + ROWS]:
            of_subject = masks[subject.name]
            ranked = sorted(of_subject, key=lambda view: of_subject[view].confidence)
            places = np.linspace(0, len(ranked) - 1, min(len(ranked), COLUMNS)).round()
            cells = [
                _cell(view, photos[view], of_subject[view], mask_folder)
                for view in (ranked[int(place)] for place in places)
            ]
            rows.append(_row(subject, len(ranked), len(photos), cells))
        path = folder / f"sheet_{number:02d}.jpg"
        with atomic_write(path) as file:
            stack(rows).save(file, format="JPEG", quality=85)
        paths.append(path)
    for path in set(folder.glob("sheet_*.jpg")) - set(paths):
        path.unlink()
    return paths


def _cell(view: str, photo: Path, masked: Masked, folder: Path) -> Image.Image:
    pixels, mask = decode(photo)[..., :3], MaskFile(folder / masked.file).read()
    height = max(1, round(mask.shape[0] * _DRAWN / mask.shape[1]))
    pixels = cv2.resize(pixels, (_DRAWN, height), interpolation=cv2.INTER_AREA)
    mask = cv2.resize(mask.astype(np.float32), (_DRAWN, height), interpolation=cv2.INTER_AREA)
    image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    overlay = Image.fromarray(draw_overlay(image, torch.from_numpy(mask >= 0.5)))
    overlay = overlay.resize((CELL, max(1, round(height * CELL / _DRAWN))))
    page = Image.new("RGB", (CELL, overlay.height + 2 * MARGIN + 4), PAPER)
    page.paste(overlay, (0, 0))
    text = f"{view}  {masked.confidence:.2f}"
    ImageDraw.Draw(page).text((2, overlay.height + 2), text, fill=FAINT, font=font(13))
    return page


def _row(subject: Subject, found: int, total: int, cells: Sequence[Image.Image]) -> Image.Image:
    width = COLUMNS * (CELL + MARGIN) - MARGIN
    label = f"{subject.category}: " if subject.category else ""
    title = f"{label}{subject.sentences[0]} · {found} of {total} photos"
    lines = wrap(title, width, font(16))
    top = 22 * len(lines)
    height = max((cell.height for cell in cells), default=0)
    page = Image.new("RGB", (width, top + height), PAPER)
    draw = ImageDraw.Draw(page)
    for index, line in enumerate(lines):
        draw.text((0, 22 * index), line, fill=INK, font=font(16))
    for column, cell in enumerate(cells):
        page.paste(cell, (column * (CELL + MARGIN), top))
    return page
