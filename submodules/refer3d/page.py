"""One HTML file with the results of a run: sortable tables, pictures, curves, options.

It needs no network and no other file.
"""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from refer3d.runs.files import atomic_write

PICTURE_WIDTH = 320
"""Largest width of a picture in the page."""
PICTURE_BYTES = 8 << 20
"""Bytes of all pictures of a page; those beyond are left out."""
CURVE = (360, 120)
"""Width and height of a curve."""
CURVE_POINTS = 300


class Picture(NamedTuple):
    """A picture of a page."""

    jpeg: bytes
    width: int
    height: int

    @classmethod
    def of(cls, pixels: np.ndarray | Image.Image) -> Picture:  # [h, w, 3] uint8
        """Encodes a picture, a large one made smaller."""
        image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        factor = min(1.0, PICTURE_WIDTH / image.width)
        size = round(image.width * factor), max(1, round(image.height * factor))
        file = io.BytesIO()
        image.resize(size, Image.Resampling.LANCZOS).save(file, format="JPEG", quality=80)
        return cls(file.getvalue(), *size)


class Table(NamedTuple):
    """A table whose rows a click on a column sorts."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    """Cells: text, numbers, pictures, or None."""


def write_page(
    path: Path | str,
    title: str,
    tables: Sequence[Table],
    options: Mapping[str, Any],
    curves: Mapping[str, Sequence[tuple[int, float]]] | None = None,
) -> None:
    """Writes the page; the file appears whole or not at all.

    Args:
        path: The file.
        title: Its heading.
        tables: In the page's order.
        options: Plain values, mappings of them included, which the page shows below.
        curves: Steps and values by name, as :func:`read_curves` returns them.
    """
    budget = [PICTURE_BYTES]
    parts = [
        *('<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">', _POLICY),
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{html.escape(title)}</h1>",
    ]
    parts += [line for table in tables for line in _table(table, budget)]
    if curves:
        parts += ["<h2>Training</h2><div>", *(_curve(*item) for item in curves.items()), "</div>"]
    rows = list(_flat(options))
    parts += ["<details><summary>Options and versions</summary>"]
    parts += [*_table(Table("", ("option", "value"), rows), budget), "</details>"]
    parts += [f"<script>{_SORT}</script></body></html>\n"]
    with atomic_write(path) as file:
        file.write("\n".join(parts).encode(errors="backslashreplace"))


def read_curves(folder: Path | str) -> dict[str, list[tuple[int, float]]]:
    """Reads steps and values by name from the TensorBoard files in a folder; empty without any.

    Where a resumed run has logged a step again, the later value counts.
    """
    curves: dict[str, dict[int, float]] = {}
    if files := sorted(Path(folder).glob("events.out.*")):
        from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

        for event in (event for file in files for event in LegacyEventFileLoader(str(file)).Load()):
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    curves.setdefault(value.tag, {})[event.step] = value.simple_value
    return {name: sorted(points.items()) for name, points in curves.items()}


def _table(table: Table, budget: list[int]) -> Iterator[str]:
    if table.title:
        yield f"<h2>{html.escape(table.title)}</h2>"
    heads = "".join(f"<th><button>{html.escape(name)}</button></th>" for name in table.columns)
    yield f"<table><thead><tr>{heads}</tr></thead><tbody>"
    for row in table.rows:
        yield f"<tr>{''.join(_cell(value, budget) for value in row)}</tr>"
    yield "</tbody></table>"


def _cell(value: Any, budget: list[int]) -> str:
    if isinstance(value, Picture):
        budget[0] -= len(value.jpeg)
        if budget[0] < 0:
            return "<td></td>"
        data = base64.b64encode(value.jpeg).decode()
        size = f'width="{value.width}" height="{value.height}"'
        return f'<td><img {size} alt="" loading="lazy" src="data:image/jpeg;base64,{data}"></td>'
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is None or (is_number and not math.isfinite(value)):
        return "<td></td>"
    if is_number:
        shown = f"{value:.3f}" if isinstance(value, float) else value
        return f'<td class="number" data-value="{value!r}">{shown}</td>'
    return f"<td>{html.escape(str(value))}</td>"


def _curve(name: str, points: Sequence[tuple[int, float]]) -> str:
    """A line with its ends' numbers, as SVG."""
    points = [(step, value) for step, value in points if math.isfinite(value)]
    if not points:
        return ""
    chosen = points[:: max(1, len(points) // CURVE_POINTS)]
    chosen += [points[-1]] * (chosen[-1] != points[-1])
    steps, values = zip(*chosen, strict=True)
    (width, height), low, high = CURVE, min(values), max(values)
    across, up = max(steps[-1] - steps[0], 1), max(high - low, 1e-12)
    line = " ".join(
        f"{width * (step - steps[0]) / across:.1f},{height - height * (value - low) / up:.1f}"
        for step, value in chosen
    )
    return (
        f"<figure><figcaption>{html.escape(name)}: {values[-1]:.4g} at step {steps[-1]}, "
        f"{low:.4g} to {high:.4g}</figcaption>"
        f'<svg viewBox="-2 -2 {width + 4} {height + 4}" width="{width}" height="{height}">'
        f'<polyline points="{line}"/></svg></figure>'
    )


def _flat(options: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Names and values, those of inner mappings with dots."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", str(value)


_POLICY = (
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">"
)
_STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; color: #18181c; margin: 2em auto; max-width: 75em;
  padding: 0 1em }
table { border-collapse: collapse }
th, td { text-align: left; vertical-align: top; padding: .25em .7em; border-bottom: 1px solid #ddd;
  white-space: pre-line }
th { position: sticky; top: 0; background: #fff }
th button { font: inherit; font-weight: 600; border: 0; padding: 0; background: none;
  cursor: pointer }
th[aria-sort=ascending] button::after { content: " ↑" }
th[aria-sort=descending] button::after { content: " ↓" }
.number { text-align: right; font-variant-numeric: tabular-nums }
figure { display: inline-block; width: 364px; margin: 0 1.5em 1em 0; vertical-align: bottom }
svg { background: #f6f6f8 }
polyline { fill: none; stroke: #c26a00; stroke-width: 1.5 }
img { display: block }
"""
_SORT = """
for (const head of document.querySelectorAll("th")) head.firstChild.onclick = () => {
  const order = head.ariaSort === "ascending" ? "descending" : "ascending";
  for (const other of head.parentNode.cells) other.ariaSort = null;
  head.ariaSort = order;
  const key = row => row.cells[head.cellIndex].dataset.value ?? row.cells[head.cellIndex].innerText;
  const compare = (a, b) => a === "" || b === "" ? (a === "") - (b === "")
    : (order === "ascending" ? 1 : -1) * (a - b || a.localeCompare(b));
  const body = head.closest("table").tBodies[0];
  body.append(...[...body.rows].sort((a, b) => compare(key(a), key(b))));
};
"""
