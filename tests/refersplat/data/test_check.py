"""The command that describes a scene."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from refer3d.runs.errors import run
from refersplat.data import check


def test_check_prints_what_it_found(small_scene, capsys):
    (small_scene.path / "json/frame_00004.json").unlink()
    check.main([str(small_scene.path), "-r", "2", "--test_views", "3"])
    output = capsys.readouterr().out
    for pattern in (
        r"views +4, frame_00001 … frame_00004",
        r"3 train, 1 test \(by --data.test_views\): frame_00003",
        r"images +20x15 \(4\)",
        r"sentences +12, as in Ref-LERF",
        r"points +12",
        r"cup +2 +2 +50.00 % +0 +1 +2 +50.00 % +0",
        r"all +2 +4 +50.00 % +0 +1 +4 +50.00 % +0",
        r"warnings +1\n +1 of 4 views without json: frame_00004",
    ):
        assert re.search(pattern, output), pattern


def test_check_exits_with_two_and_one_line(small_scene, capsys, monkeypatch):
    (small_scene.path / "gt_mask/cup_frame_00002.png").unlink()
    monkeypatch.setattr(sys, "argv", ["check", str(small_scene.path)])
    with pytest.raises(SystemExit) as ended:
        run(check.main)
    assert ended.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "'cup_frame_00002.png'" in output.err
    assert output.err.count("\n") == 1


def test_demo_scene_is_whole_and_small(capsys):
    scene = Path(__file__).parents[3] / "data/demo/tabletop"
    check.main([str(scene)])
    output = capsys.readouterr().out
    assert "40 train, 8 test" in output
    assert re.search(r"warnings +none", output)
    assert sum(path.stat().st_size for path in scene.rglob("*")) < 6e6
    for notice in ("CC BY 4.0", "Calli", "Copyright 2022 Toyota Research Institute"):
        assert notice in (scene / "LICENSE.txt").read_text()
