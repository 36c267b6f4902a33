"""detailbase view: phrases of a sentence as colours of a scan's points."""

import io
import socket
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from plyfile import PlyData

from detailbase.__main__ import main
from detailbase.inference.referrer import PhraseMask
from detailbase.scans.scan import Scan
from detailbase.viewer import program
from detailbase.viewer.options import ViewConfig, read_options
from detailbase.viewer.program import describe
from refer3d.runs.errors import InputError
from refer3d.runs.options import options
from refer3d.viewer import ServerConfig, start_server
from tests.errors import raises

ROOM = Path(__file__).parents[3] / "data" / "demo" / "room" / "room.ply"


def test_phrases_are_described_with_their_colors():
    masks = np.eye(2, 5, dtype=bool)
    answers = [
        PhraseMask("the chair", 1, 0.5, masks[0]),
        PhraseMask("a <b>cat", 3, 0.0, masks[1] & False),
    ]
    lines = describe(answers).splitlines()
    assert "the chair" in lines[0]
    assert "1 points, score 0.50" in lines[0]
    assert "e63c32" in lines[0]
    assert "nothing found" in lines[1]
    assert "<b>" not in lines[1]


def test_a_page_needs_no_server(tmp_path):
    pytest.importorskip("viser")
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    page = tmp_path / "page.html"
    main(["view", str(ROOM), "--sentence", "the brown chair", "--export", str(page),
          "--port", str(port)])  # fmt: skip
    assert page.read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html>")


def test_a_marked_part_is_downloaded():
    pytest.importorskip("viser")
    rows = np.arange(3)
    none = np.zeros((0, 3), dtype=np.int64)
    points = np.eye(3)
    scan = Scan(None, rows, points, np.full((3, 3), 9, np.uint8), rows, 3, none, np.eye(3))
    sent = {}
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    server = start_server(ServerConfig(port=port), "test")
    try:
        client = SimpleNamespace(gui=server.gui, send_file_download=sent.__setitem__)
        offer = program._add_download(scan, client)
        part, ending, button = server.gui._gui_input_handle_from_uuid.values()
        assert not part.visible
        masks = [np.array(mask, bool) for mask in ([0, 1, 1], [0, 0, 0], [1, 0, 0])]
        offer([PhraseMask("the chair", 1, 0.5, mask) for mask in masks])
        assert part.options == ("1 the chair", "2 the chair")
        assert part.visible
        part.value, ending.value = part.options[1], "ply"
        for callback in button._impl.update_cb:
            callback(None)
    finally:
        server.stop()
    ((name, content),) = sent.items()
    assert name == "2_the_chair.ply"
    (row,) = PlyData.read(io.BytesIO(content))["vertex"]
    assert (row["x"], row["y"], row["z"]) == (1, 0, 0)


def test_options():
    with raises(InputError, "file of a scan"):
        read_options([])
    assert read_options(["a.ply", "--port", "9000"]).server.port == 9000
    for option in options(ViewConfig):
        assert option.meaning
        assert option.bounds or type(option.default) not in (int, float)
