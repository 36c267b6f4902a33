"""The program ``detailbase view``: a scan and the phrases of sentences in the browser."""

from __future__ import annotations

import functools
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detailbase.inference.drawing import COLORS, tint
from detailbase.inference.referrer import DEMO, PhraseMask, Referrer
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
        return f"**{html.escape(sentence)}**\n\n{describe(answers)}"

    @size.on_update
    def _(_: Any) -> None:
        cloud.point_size = size.value

    ask = add_question_form(client, draw)
    if sentence:
        ask(sentence)
