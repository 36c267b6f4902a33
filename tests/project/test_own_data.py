"""The commands of "From your phone to an answer" and "From your scan to an answer" run."""

import importlib
import json
import shutil
import socket
from pathlib import Path

import pytest

from refersplat.config import DataConfig
from refersplat.data import load_scene
from refersplat.data.images import decode_mask
from refersplat.labels.files import save_label
from tests.project.test_documented_commands import MODELS, commands
from tests.refersplat.commands.conftest import BALLS, threads, write_balls

ROOT = Path(__file__).parents[2]
SHORT = ("--iterations", "100", "--train.iterations", "60", "--text.encoder", "hash",
         "--train.network_lr", "3e-3", "--train.hold_out_every", "5")  # fmt: skip
"""Options of a run of seconds."""
SENTENCE = "the green melon"


def documented(page):
    """The commands of a page that this code runs."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return [words for words in commands(text) if words[0] != "pip"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return str(probe.getsockname()[1])


def run(words):
    if words[0] == "python":
        importlib.import_module(words[1].removesuffix(".py")).main(words[2:])
    else:
        importlib.import_module(f"{words[0]}.__main__").main(words[1:])


@pytest.mark.parametrize("page", ["phone.md", "scan.md"])
def test_options_are_understood(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    programs = {words[0] for words in documented(page)}
    assert programs & set(MODELS)
    for command, name, *rest in documented(page):
        if command in MODELS:
            importlib.import_module(f"{command}.__main__").PROGRAMS[name].read(rest)


@pytest.mark.slow
def test_from_a_phone_to_an_answer(tmp_path, monkeypatch):
    pytest.importorskip("viser")
    monkeypatch.chdir(tmp_path)
    ran = []
    with threads(1):
        for words in documented("phone.md"):
            words = [SENTENCE if word == "the tall yellow bottle" else word for word in words]
            program = words[1]
            if program == "photos":  # tests/refersplat/photos has this step
                write_balls(tmp_path / "scenes" / "desk")
                for folder in ("json", "gt_mask"):
                    (tmp_path / "scenes/desk" / folder).rename(tmp_path / folder)
            elif program == "view" and "--export" not in words:
                if not (tmp_path / "scenes/desk/json").exists():
                    label_by_hand(tmp_path)
            else:
                if program == "train.py":
                    words += SHORT
                elif program == "view":
                    words += ["--port", free_port()]
                run(words)
                ran.append(program)
    assert ran.count("train.py") == 2
    assert {"check", "render.py", "view", "export"} <= set(ran)
    assert (tmp_path / "desk.html").stat().st_size > 1e5
    assert (tmp_path / "bottle.ply").stat().st_size > 1000
    document = json.loads((tmp_path / "masks.json").read_text())
    assert document["categories"] == [{"id": 1, "name": SENTENCE}]


def label_by_hand(folder):
    """Labels as the browser does, with exact masks instead of lassos."""
    scene = load_scene(DataConfig(scene=str(folder / "scenes/desk")))
    for name, (_, _, sentences) in BALLS.items():
        paths = {view.name: folder / "gt_mask" / f"{name}_{view.name}.png" for view in scene.views}
        masks = {view: decode_mask(path) for view, path in paths.items()}
        save_label(scene, name, sentences, masks)


@pytest.mark.slow
def test_from_a_scan_to_an_answer(tmp_path, monkeypatch):
    pytest.importorskip("viser")
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "data/demo/room/room.ply", "scan.ply")
    for words in documented("scan.md"):
        if words[0] == "bash" or words == ["detailbase", "view", "scan.ply"] or "best.pth" in words:
            continue
        run(words + (["--port", free_port()] if words[1] == "view" else []))
    assert (tmp_path / "room.html").stat().st_size > 1e5
    assert json.loads((tmp_path / "out/masks.json").read_text())
    assert (tmp_path / "out/picture.png").exists()
