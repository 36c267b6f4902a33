"""Pictures of masks: the marked photo with its sentence, the mask, the heat map."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

MARK = (255, 176, 0)
"""Colour of visible parts; nearly everybody can tell orange and blue apart."""
HIDDEN = (60, 150, 255)
"""Colour of the outline of hidden parts."""
PAPER, INK, FAINT = (255, 255, 255), (24, 24, 28), (120, 120, 128)
SMALLEST_WIDTH = 480
"""Least width of a picture with a caption."""
MARGIN = 8
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def to_pixels(
    image: Tensor,  # [3, H, W] in 0..1
) -> np.ndarray:  # [H, W, 3] uint8
    """Converts an image tensor to a picture."""
    scaled = (image.detach().clamp(0, 1) * 255).round().byte()
    return scaled.permute(1, 2, 0).contiguous().cpu().numpy()


def draw_mask(
    mask: Tensor,  # [H, W] bool
) -> np.ndarray:  # [H, W] uint8
    """Draws the mask in white on black."""
    return mask.cpu().numpy().astype(np.uint8) * 255


def draw_heat(
    probabilities: Tensor,  # [H, W]
) -> np.ndarray:  # [H, W, 3] uint8
    """Draws probabilities from black over violet and orange to yellow."""
    levels = (probabilities.detach().clamp(0, 1) * 255).byte().cpu().numpy()
    return cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[..., ::-1]


def draw_overlay(
    image: Tensor,  # [3, H, W]
    mask: Tensor,  # [H, W] bool
    amodal: Tensor | None = None,  # [H, W] bool
) -> np.ndarray:  # [h, w, 3] uint8
    """Darkens the image except for the object; enlarges a small one.

    Args:
        image: Image of the view.
        mask: Visible part of the object.
        amodal: The whole object; its hidden part gets an outline.
    """
    pixels = to_pixels(image)
    factor = enlargement(pixels.shape[1])
    size = (pixels.shape[1] * factor, pixels.shape[0] * factor)
    pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC).astype(np.float32)
    inside = _smooth(mask, size)
    gray = pixels.mean(axis=2, keepdims=True)
    around = 0.55 * (0.5 * pixels + 0.5 * gray)
    marked = 0.75 * pixels + 0.25 * np.array(MARK, np.float32)
    weight = cv2.GaussianBlur(inside, (0, 0), 0.8)[..., None]
    picture = (weight * marked + (1 - weight) * around).clip(0, 255).astype(np.uint8)
    thickness = max(2, round(size[0] / 320))
    if amodal is not None:
        hidden = _smooth(amodal & ~mask, size)
        # Slivers along the visible mask's edge are no hidden part.
        kernel = np.ones((2 * thickness + 3,) * 2, np.uint8)
        _outline(picture, cv2.morphologyEx(hidden, cv2.MORPH_OPEN, kernel), HIDDEN, thickness)
    _outline(picture, inside, MARK, thickness)
    return picture


def enlargement(width: int) -> int:
    """Factor by which a picture of this width is enlarged."""
    return max(1, -(-SMALLEST_WIDTH // width))


def add_caption(
    picture: np.ndarray,  # [h, w, 3]
    sentence: str,
    note: str = "",
    size: int | None = None,
) -> Image.Image:
    """Adds a sentence and a fainter note below the picture, in as many lines as they need."""
    width = picture.shape[1]
    size = size or max(15, width // 36)
    small = font(round(size * 0.85))
    lines = [(line, INK, font(size)) for line in wrap(sentence, width - 2 * MARGIN, font(size))]
    if note:
        lines += [(line, FAINT, small) for line in wrap(note, width - 2 * MARGIN, small)]
    step = round(size * 1.35)
    height = MARGIN * 2 + step * len(lines)
    page = Image.new("RGB", (width, picture.shape[0] + height), PAPER)
    page.paste(Image.fromarray(picture), (0, 0))
    draw = ImageDraw.Draw(page)
    top = picture.shape[0] + MARGIN
    for line, color, typeface in lines:
        draw.text((MARGIN, top), line, fill=color, font=typeface)
        top += step
    return page


def wrap(text: str, width: int, typeface: Font) -> list[str]:
    """Breaks text into lines of at most ``width`` pixels, inside a word where it is longer."""
    lines = [""]
    for word in text.split():
        line = f"{lines[-1]} {word}".lstrip()
        if typeface.getlength(line) <= width:
            lines[-1] = line
            continue
        if lines[-1]:
            lines.append("")
        for character in word:
            if lines[-1] and typeface.getlength(lines[-1] + character) > width:
                lines.append("")
            lines[-1] += character
    return lines


def stack(pictures: Sequence[Image.Image], gap: int = MARGIN) -> Image.Image:
    """Stacks pictures below each other."""
    width = max(picture.width for picture in pictures)
    height = sum(picture.height for picture in pictures) + gap * (len(pictures) - 1)
    page = Image.new("RGB", (width, height), PAPER)
    top = 0
    for picture in pictures:
        page.paste(picture, (0, top))
        top += picture.height + gap
    return page


@functools.cache
def font(size: int) -> Font:
    """Loads DejaVu Sans (Latin, Greek, Cyrillic) from matplotlib, else Pillow's own font."""
    spec = importlib.util.find_spec("matplotlib")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder, "mpl-data", "fonts", "ttf", "DejaVuSans.ttf")
        if path.is_file():
            return ImageFont.truetype(str(path), size)
    return ImageFont.load_default(size)


def _smooth(mask: Tensor, size: tuple[int, int]) -> np.ndarray:  # [h, w] float32 of 0 and 1
    """Enlarges a mask with round instead of stepped edges."""
    values = mask.cpu().numpy().astype(np.float32)
    return (cv2.resize(values, size, interpolation=cv2.INTER_CUBIC) >= 0.5).astype(np.float32)


def _outline(
    picture: np.ndarray, mask: np.ndarray, color: tuple[int, int, int], thickness: int
) -> None:
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, color, thickness, cv2.LINE_AA)
