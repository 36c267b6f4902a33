"""Odd inputs of a newcomer: each gets one line that names what is wrong and what helps."""

import importlib
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from refer3d.runs.errors import InputError
from tests.errors import raises

ROOM = Path(__file__).parents[2] / "data/demo/room/room.ply"


def picture(seed=0, size=(64, 96)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def video(path, frames):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (96, 64))
    for frame in frames:
        writer.write(frame)
    writer.release()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with what somebody might name instead of photos, sentences, runs and scans."""
    folder = tmp_path_factory.mktemp("odd")
    for name in ("empty", "two", "copies", "fake", "gif", "film", "raw", "links", "wide", "tiny"):
        (folder / name).mkdir()
    for index in range(4):
        if index < 2:
            Image.fromarray(picture(index)).save(folder / f"two/{index}.jpg")
        Image.fromarray(picture()).save(folder / f"copies/{index}.jpg")
        Image.fromarray(picture(index, (64, 400))).save(folder / f"wide/{index}.jpg")
        Image.fromarray(picture(index, (20, 30))).save(folder / f"tiny/{index}.png")
    Image.fromarray(picture()).save(folder / "gif/a.gif")
    (folder / "fake/text.jpg").write_text("hello")
    (folder / "fake/nothing.jpg").write_bytes(b"")
    (folder / "fake/cut.jpg").write_bytes((folder / "two/0.jpg").read_bytes()[:700])
    (folder / "raw/a.CR2").write_bytes(b"raw")
    (folder / "links/x.jpg").mkdir()
    (folder / "links/x.jpg/inner.txt").write_text("1")
    os.symlink("nowhere", folder / "links/broken.jpg")
    os.symlink(folder / "links", folder / "links/loop")
    video(folder / "still.mp4", [picture()] * 12)
    video(folder / "empty.mp4", [])
    shutil.copy(folder / "still.mp4", folder / "film/a.mov")
    (folder / "text.mp4").write_text("no film")
    (folder / "photos.zip").write_bytes(b"PK")
    for name, text in {
        "good.txt": "the red mug", "blank.txt": "\n \n", "kind.json": '{"mug": 3}',
        "cut.json": '{"mug": ["a', "twice.json": '{"a": ["it"], "b": ["it"]}',
        "one.xyz": "0 0 0\n", "scan.dae": "<xml/>", "blank.ply": "",
    }.items():  # fmt: skip
        (folder / name).write_text(text)
    (folder / "cut.ply").write_bytes(ROOM.read_bytes()[:5000])
    return folder


PHOTOS = {
    "nowhere": ("nowhere", ["nowhere", "correct"]),
    "an address": ("https://example.org/a.mp4", ["https://example.org/a.mp4", "download"]),
    "an empty folder": ("empty", ["empty", "photos", "copy"]),
    "two photos": ("two", ["3", "2", "take more"]),
    "one photo four times": ("copies", ["3", "1.jpg", "the same file as 0.jpg"]),
    "no images behind the names": ("fake", ["text.jpg", "nothing.jpg", "cut.jpg", "export"]),
    "GIFs": ("gif", ["a.gif", ".jpg"]),
    "raw files": ("raw", ["a.CR2", "JPEG"]),
    "a folder with a video": ("film", ["a.mov", "name the video"]),
    "panoramas": ("wide", ["panorama of 400x64", "single photos"]),
    "previews": ("tiny", ["30x20", "preview"]),
    "folders and links named as photos": ("links", ["inner.txt", "copy"]),
    "an archive": ("photos.zip", [".zip", "folder of the photos"]),
    "a still video": ("still.mp4", ["camera stood still", "more", "take more"]),
    "a video without frames": ("empty.mp4", ["empty.mp4", "MP4"]),
    "text named as a video": ("text.mp4", ["text.mp4", "MP4"]),
}


@pytest.mark.parametrize("name", PHOTOS)
def test_photos(place, tmp_path, monkeypatch, name):
    pytest.importorskip("pycolmap")
    source, words = PHOTOS[name]
    refused(monkeypatch, place, ["refersplat", "photos", source, "-o", str(tmp_path / "s")], words)


PROGRAMS = {
    "a misspelt program": (["refersplat", "foto"], ["foto", "photos"]),
    "no output": (["refersplat", "photos", "two"], ["-o"]),
    "the output in a file's place": (
        ["refersplat", "photos", "two", "-o", "still.mp4"],
        ["-o", "still.mp4", "name another"],
    ),
    "the output among the photos": (
        ["refersplat", "photos", "two", "-o", "two/s"],
        ["-o", "two/s"],
    ),
    "an output that is in use": (["refersplat", "photos", "two", "-o", "film"], ["-o", "film"]),
    "too few frames": (
        ["refersplat", "photos", "still.mp4", "-o", "s", "--frames", "2"],
        ["--frames", "3", "2"],
    ),
    "photos without poses": (
        ["refersplat", "train", "-s", "two", "-m", "o"],
        ["two", "poses", "COLMAP"],
    ),
    "masks: no such sentences": (
        ["refersplat", "masks", "two", "--sentences", "none.txt"],
        ["--sentences", "none.txt"],
    ),
    "masks: blank lines": (
        ["refersplat", "masks", "two", "--sentences", "blank.txt"],
        ["blank.txt", "one per line"],
    ),
    "masks: a number": (
        ["refersplat", "masks", "two", "--sentences", "kind.json"],
        ["kind.json", "mug", "list", "3"],
    ),
    "masks: a cut file": (
        ["refersplat", "masks", "two", "--sentences", "cut.json"],
        ["cut.json", "JSON"],
    ),
    "masks: a sentence of two objects": (
        ["refersplat", "masks", "two", "--sentences", "twice.json"],
        ["twice.json", "a", "b", "it"],
    ),
    "masks: no scene": (
        ["refersplat", "masks", "two", "--sentences", "good.txt"],
        ["two/images", "--images"],
    ),
    "view: nowhere": (["refersplat", "view", "-m", "nowhere"], ["nowhere", "train.py"]),
    "view: a scene": (["refersplat", "view", "-m", "two"], ["two", "train.py"]),
    "view: no such port": (["refersplat", "view", "-m", "two", "--port", "99999"], ["65535"]),
    "export: no format": (["refersplat", "export", "-m", "two", "-o", "a.obj"], ["-o", ".glb"]),
    "export: a photo": (
        ["refersplat", "export", "-m", "two/0.jpg", "-o", "a.ply"],
        ["two/0.jpg", "JPEG", "point_cloud.ply"],
    ),
    "scan: nowhere": (["detailbase", "predict", "none.ply", "a chair", "-o", "o"], ["none.ply"]),
    "scan: a folder": (["detailbase", "predict", "two", "a chair", "-o", "o"], ["two", "folder"]),
    "scan: a photo": (
        ["detailbase", "predict", "two/0.jpg", "a chair", "-o", "o"],
        ["two/0.jpg", "JPEG", "PLY"],
    ),
    "scan: another format": (
        ["detailbase", "predict", "scan.dae", "a chair", "-o", "o"],
        ["scan.dae", "PLY"],
    ),
    "scan: an empty file": (
        ["detailbase", "predict", "blank.ply", "a chair", "-o", "o"],
        ["blank.ply", "empty"],
    ),
    "scan: cut short": (
        ["detailbase", "predict", "cut.ply", "a chair", "-o", "o"],
        ["cut.ply", "cut short"],
    ),
    "scan: one point": (
        ["detailbase", "predict", "one.xyz", "a chair", "-o", "o"],
        ["one.xyz", "coincide"],
    ),
    "scan: metres as millimetres": (
        ["detailbase", "predict", str(ROOM), "a chair", "-o", "o", "--unit", "mm"],
        ["--unit m"],
    ),
    "scan: too few points kept": (
        ["detailbase", "predict", str(ROOM), "a chair", "-o", "o", "--max_points", "0"],
        ["--max_points", "1", "0"],
    ),
    "scan: view nothing": (["detailbase", "view"], ["detailbase view", "scan"]),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(place, monkeypatch, name):
    words, expected = PROGRAMS[name]
    if words[:2] == ["refersplat", "photos"]:
        pytest.importorskip("pycolmap")
    refused(monkeypatch, place, words, expected)


def refused(monkeypatch, place, words, expected):
    monkeypatch.chdir(place)
    before = sorted(place.rglob("*"))
    with raises(InputError, *expected) as error:
        importlib.import_module(f"{words[0]}.__main__").main(words[1:])
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 700 + len(str(place)) * 3  # a line, not a list of all files
    assert sorted(place.rglob("*")) == before
