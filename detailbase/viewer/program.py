"""The program ``detailbase view``: a scan and the phrases of sentences in the browser."""

from __future__ import annotations

import functools
import html
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detailbase.inference.drawing import COLORS, tint
from detailbase.inference.referrer import DEMO, PhraseMask, Referrer
from detailbase.scans.export import WRITERS, installed_writers, select_part
from detailbase.scans.scan import Scan
from detailbase.viewer.options import ViewConfig
from refer3d.native.start import start_program
from refer3d.viewer import add_question_form, serve, start_server, write_page


def view(config: ViewConfig) -> None:
    """Opens the window, or writes a page.

    Raises:
        InputError: The scan or the checkpoint cannot be read, viser is not installed, or the port
            is taken.
    """
    start_program("detailbase")
    referrer = Referrer.load(config.checkpoint or DEMO, device=config.device)
    scan = referrer.read(config.scan, config.unit, config.up, config.max_points)
    server = start_server(config.server, Path(config.scan).name)
    server.scene.set_up_direction("+z")
    points = _points(scan)
    middle = points.mean(axis=0)
    size = float(np.ptp(points, axis=0).max())
    server.initial_camera.position = middle + size * np.array([0.6, -0.6, 0.9])
    server.initial_camera.look_at = middle
    if config.server.export:
        answers = referrer.mark(scan, config.sentence) if config.sentence else []
        _add(server.scene, scan, [answer.mask for answer in answers])
        write_page(server, config.server.export)
        server.stop()
        return
    server.on_client_connect(functools.partial(_furnish, referrer, scan, config.sentence))
    serve(server, config.server)


def describe(answers: Sequence[PhraseMask]) -> str:
    """Phrases with the colour of their marks, numbers of points and scores, as Markdown."""
    lines = []
    for index, answer in enumerate(answers):
        red, green, blue = COLORS[index % len(COLORS)]
        count = int(answer.mask.sum())
        found = f"{count} points, score {answer.score:.2f}" if count else "nothing found"
        # viser draws a chip of the colour beside its code.
        color = f"`#{red:02x}{green:02x}{blue:02x}`"
        lines.append(f"* {color} **{html.escape(answer.phrase)}**: {found}")
    return "\n".join(lines)


def _points(scan: Scan) -> np.ndarray:  # [N, 3] metres, upright
    return scan.cloud.xyz.numpy()[scan.owner]


def _add(scene: Any, scan: Scan, masks: Sequence[np.ndarray]) -> Any:
    points = _points(scan)
    spacing = float(np.ptp(points, axis=0).max()) / len(points) ** 0.5
    return scene.add_point_cloud("/scan", points, tint(scan.colors, masks), point_size=spacing)


def _furnish(referrer: Referrer, scan: Scan, sentence: str, client: Any) -> None:
    """Gives a client a scene and controls of its own: several at once do not disturb each other."""
    cloud = _add(client.scene, scan, [])
    size = client.gui.add_slider("Point size", 0.002, 0.1, 0.002, float(cloud.point_size))

    def draw(sentence: str) -> str:
        answers = referrer.mark(scan, sentence)
        cloud.colors = tint(scan.colors, [answer.mask for answer in answers])
        offer(answers)
        return f"**{html.escape(sentence)}**\n\n{describe(answers)}"

    @size.on_update
    def _(_: Any) -> None:
        cloud.point_size = size.value

    ask = add_question_form(client, draw)
    offer = _add_download(scan, client)
    if sentence:
        ask(sentence)


def _add_download(scan: Scan, client: Any) -> Callable[[Sequence[PhraseMask]], None]:
    """Adds the controls that download what a phrase marks; returns what offers an answer there."""
    gui, parts = client.gui, {}
    phrase = gui.add_dropdown("Part", ("",), visible=False)
    ending = gui.add_dropdown("Format", installed_writers(), visible=False)
    button = gui.add_button("Download", visible=False)

    def offer(answers: Sequence[PhraseMask]) -> None:
        marked = [answer for answer in answers if answer.mask.any()]
        parts.clear()
        parts.update({f"{i} {answer.phrase}": answer.mask for i, answer in enumerate(marked, 1)})
        phrase.options = [*parts] or [""]
        for control in (phrase, ending, button):
            control.visible = bool(parts)

    @button.on_click
    def _(_: Any) -> None:
        file = io.BytesIO()
        WRITERS[ending.value](file, select_part(scan, parts[phrase.value]))
        name = re.sub(r"[^a-z0-9]+", "_", phrase.value.lower())
        client.send_file_download(f"{name}.{ending.value}", file.getvalue())

    return offer
