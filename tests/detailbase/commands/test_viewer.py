"""detailbase view: phrases of a sentence as colours of a scan's points."""

import socket
from pathlib import Path

import numpy as np
import pytest

from detailbase.__main__ import main
from detailbase.inference.referrer import PhraseMask
from detailbase.viewer.options import ViewConfig, read_options
from detailbase.viewer.program import describe
from refer3d.runs.errors import InputError
from refer3d.runs.options import options
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


def test_options():
    with raises(InputError, "PLY"):
        read_options([])
    assert read_options(["a.ply", "--port", "9000"]).server.port == 9000
    for option in options(ViewConfig):
        assert option.meaning
        assert option.bounds or type(option.default) not in (int, float)
