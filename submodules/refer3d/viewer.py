"""Browser windows of both models: a server by viser, and a form that asks sentences."""

from __future__ import annotations

import html
import importlib
import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from refer3d.runs.errors import InputError
from refer3d.runs.files import atomic_write
from refer3d.runs.options import Bounds

log = logging.getLogger(__name__)

Draw = Callable[[str], str]
"""Marks the answer to a sentence in one client's scene, and returns lines of Markdown about it.

Markdown may hold HTML: text of users and of files is escaped in it."""


@dataclass(frozen=True)
class ServerConfig:
    """Window of the browser."""

    host: Annotated[str, arg(aliases=("--host",))] = "localhost"
    """Address to listen at; 0.0.0.0 lets other machines in."""
    port: Annotated[int, arg(aliases=("--port",)), Bounds(1, 65535)] = 8080
    """Port to listen at."""
    export: Annotated[str, arg(aliases=("--export",))] = ""
    """Write the scene with the answer to --sentence as an HTML file that needs no server."""


def start_server(config: ServerConfig, label: str) -> Any:
    """Starts viser.

    Raises:
        InputError: It is not installed, or the port is taken.
    """
    try:
        viser = importlib.import_module("viser")
    except ImportError as error:
        raise InputError(
            "view: expected viser, which is not installed; pip install 'refer3d[viewer]'"
        ) from error
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.host, config.port))
        except OSError as error:
            raise InputError(
                f"--port: {config.host}:{config.port} cannot be used ({error.strerror}); choose "
                "another, such as --port 8081"
            ) from error
    server = viser.ViserServer(config.host, config.port, label=label, verbose=False)
    server.gui.configure_theme(show_logo=False)
    return server


def add_question_form(client: Any, draw: Draw, examples: Sequence[str] = ()) -> Callable[..., None]:
    """Adds the form: a sentence, examples to choose from, and what is said of the answer.

    Returns:
        A function that asks a sentence, or the last one again.
    """
    gui, last = client.gui, [""]
    with gui.add_form("Question") as form:
        text = gui.add_text("Sentence", "", hint='such as "the red mug"')
    choices = gui.add_dropdown("Objects", ("", *examples)) if examples else None
    about = gui.add_markdown("Type a sentence.")

    def ask(sentence: str | None = None) -> None:
        last[0] = last[0] if sentence is None else sentence.strip()
        if last[0]:
            try:
                about.content = draw(last[0])
            except InputError as error:  # shown to who asked, and the server goes on
                about.content = f"**{html.escape(str(error))}**"

    form.on_submit(lambda _: ask(text.value))
    if choices is not None:
        choices.on_update(lambda _: ask(choices.value))
    return ask


def serve(server: Any, config: ServerConfig) -> None:
    """Says where the window is, and waits; Ctrl-C ends it."""
    log.info("http://%s:%d (Ctrl-C ends it)", config.host, server.get_port())
    try:
        server.sleep_forever()
    finally:
        server.stop()


def write_page(server: Any, path: Path | str) -> None:
    """Writes the server's scene as one HTML file that opens without a server or network."""
    with atomic_write(path) as file:
        file.write(server.scene.as_html().encode())
    log.info("%s: %.1f MiB", path, Path(path).stat().st_size / 2**20)
