import dataclasses
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from detailbase import Referrer, predict
from detailbase.config import Config, DataConfig, NetworkConfig, TextConfig
from detailbase.descriptions.sentences import Sentences
from detailbase.inference.referrer import locate_phrases
from detailbase.model.build import build
from refer3d.runs.config import save_yaml
from refer3d.runs.errors import InputError
from refer3d.runs.options import to_mapping
from refer3d.text_encoder import make_encoder

SMALL = Config(
    name="small",
    text=TextConfig(encoder="hash", cache=""),
    network=NetworkConfig(channels=(4, 6), width=16, heads=2, hidden=16, layers=1),
)


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    network = build(SMALL.network, make_encoder("hash").dim)
    state = {"format": 1, "model": network.state_dict(), "config": to_mapping(SMALL)}
    torch.save(state, tmp_path / "best.pth")
    save_yaml(SMALL, tmp_path / "config.yaml")
    return tmp_path / "best.pth"


@pytest.fixture
def scan(tmp_path):
    rng = np.random.default_rng(0)
    names = [*((axis, "f4") for axis in "xyz"), *((c, "u1") for c in ("red", "green", "blue"))]
    rows = np.empty(400, dtype=names)
    for axis in "xyz":
        rows[axis] = rng.random(400) + 5
    for color in ("red", "green", "blue"):
        rows[color] = rng.integers(0, 256, 400)
    path = tmp_path / "scan.ply"
    PlyData([PlyElement.describe(rows, "vertex")]).write(str(path))
    return path


def test_writes_clouds_masks_and_a_picture(checkpoint, scan, tmp_path):
    out = tmp_path / "out"
    sentence = "The brown chair next to the two windows"
    predict.main([str(scan), sentence, "-o", str(out), "--checkpoint", str(checkpoint)])
    answer = json.loads((out / "masks.json").read_text())
    assert answer["sentence"] == sentence
    assert [entry["phrase"] for entry in answer["phrases"]] == ["brown chair", "two windows"]
    original = PlyData.read(str(scan))["vertex"]
    for entry in answer["phrases"]:
        cloud = PlyData.read(str(out / entry["file"]))["vertex"]
        assert np.array_equal(cloud["x"], original["x"])
        assert np.flatnonzero(cloud["selected"]).tolist() == entry["points"]
        kept = cloud["selected"] == 0
        assert np.array_equal(cloud["red"][kept], original["red"][kept])
        assert entry["count"] == len(entry["points"])
    assert cv2.imread(str(out / "picture.png")).shape[2] == 3


def test_marked_parts_are_files_of_their_own(checkpoint, scan, tmp_path):
    out = tmp_path / "out"
    argv = [str(scan), "the chair next to the window", "-o", str(out)]
    argv += ["--checkpoint", str(checkpoint)]
    predict.main([*argv, "--export", "ply", "las"])
    entries = json.loads((out / "masks.json").read_text())["phrases"]
    assert sum(bool(entry["points"]) for entry in entries)
    original = PlyData.read(str(scan))["vertex"]
    for entry in entries:
        stem = entry["file"].removesuffix(".ply")
        names = [f"{stem}_part.ply", f"{stem}_part.las"] if entry["points"] else []
        assert entry["parts"] == names
        for name in names[:1]:
            part = PlyData.read(str(out / name))["vertex"]
            np.testing.assert_array_equal(part["x"], original["x"][entry["points"]])
            np.testing.assert_array_equal(part["red"], original["red"][entry["points"]])
    predict.main(argv)
    assert not list(out.glob("*_part.*"))  # those of the earlier answer


def test_a_checkpoint_holds_the_options_of_its_network(checkpoint, scan):
    checkpoint.with_name("config.yaml").unlink()
    referrer = Referrer.load(checkpoint)
    read = referrer.read(scan)
    chair, window = referrer.mark(read, "the chair next to the window")
    assert (chair.phrase, chair.word, window.phrase) == ("chair", 1, "window")
    assert chair.mask.shape == window.mask.shape == (400,)
    assert 0 <= chair.score <= 1 or not chair.mask.any()
    (given,) = referrer.mark(read, "the chair next to the window", ["window"])
    assert np.array_equal(given.mask, window.mask)


def test_a_published_checkpoint_needs_a_config(checkpoint):
    state = torch.load(checkpoint, weights_only=True)
    torch.save(state["model"], checkpoint)
    assert Referrer.load(checkpoint).config == SMALL  # of the file beside it
    checkpoint.with_name("config.yaml").unlink()
    with pytest.raises(InputError, match=r"config\.yaml: no such file, .* name the config"):
        Referrer.load(checkpoint)


def test_thinned_scans_name_the_files_own_points(checkpoint, scan, tmp_path, caplog):
    out = tmp_path / "out"
    options = ["--max_points", "150", "--checkpoint", str(checkpoint)]
    predict.main([str(scan), "a chair", "-o", str(out), *options])
    answer = json.loads((out / "masks.json").read_text())
    assert (answer["points"], answer["left_out"]) == (400, 250)
    assert "250 are left out" in caplog.text
    (entry,) = answer["phrases"]
    cloud = PlyData.read(str(out / entry["file"]))["vertex"]
    chosen = PlyData.read(str(scan))["vertex"]["x"][entry["points"]]
    assert np.array_equal(cloud["x"][cloud["selected"] == 1], chosen)


def test_a_new_answer_replaces_the_earlier_one(checkpoint, scan, tmp_path):
    out = tmp_path / "out"
    long = "a chair that is " + "very " * 40 + "brown"
    for sentence, *phrases in (("a chair and a lamp",), ("a brown table",), (long, long)):
        more = ["--phrases", *phrases] if phrases else []
        argv = [str(scan), sentence, "-o", str(out), "--checkpoint", str(checkpoint)]
        predict.main([*argv, *more])
        named = {entry["file"] for entry in json.loads((out / "masks.json").read_text())["phrases"]}
        assert {path.name for path in out.glob("*.ply")} == named


def test_words_behind_the_encoders_last_are_warned_of(
    checkpoint, scan, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(Sentences, "reaches", lambda self, words, query: query < 5)
    argv = [str(scan), "a chair and not far from it a lamp", "-o", str(tmp_path / "out")]
    predict.main([*argv, "--checkpoint", str(checkpoint)])
    assert "'lamp' stands behind" in caplog.text
    assert "'chair' stands behind" not in caplog.text


def test_locate_phrases_are_found_in_the_sentence():
    words = ["the", "big", "brown", "chair", "and", "the", "chair"]
    assert locate_phrases(words, ["brown chair"]) == [(3, "brown chair")]
    with pytest.raises(InputError, match=r"--phrases: 'red chair'.*; give it"):
        locate_phrases(words, ["red chair"])
    assert locate_phrases(words, ["chair", "chair"]) == [(3, "chair"), (6, "chair")]
    with pytest.raises(InputError, match=r"--phrases: 'chair' .*; give it"):
        locate_phrases(words, ["chair"] * 3)


def test_an_empty_mask_is_logged(checkpoint, scan, tmp_path, caplog, monkeypatch):
    caplog.set_level("INFO")
    monkeypatch.setattr("detailbase.inference.answering.THRESHOLD", 2.0)
    argv = [str(scan), "a chair", "-o", str(tmp_path / "out"), "--checkpoint", str(checkpoint)]
    predict.main(argv)
    (entry,) = json.loads((tmp_path / "out" / "masks.json").read_text())["phrases"]
    assert (entry["count"], entry["score"]) == (0, 0.0)
    assert "nothing found" in caplog.text


MISTAKES = {
    "no phrase": (["it is there"], "sentence: expected a noun phrase, got 'it is there'; give"),
    "foreign phrase": (["a chair", "--phrases", "a sofa"], "--phrases: 'a sofa'"),
    "no points": (["a chair", "--max_points", "0"], "--max_points: expected at least 1, got 0"),
    "no checkpoint": (["a chair", "--checkpoint", "none.pth"], "none.pth: no such file; name the"),
    "wrong unit": (["a chair", "--unit", "mm"], "reaches over 0.00"),
    "no config": (["a chair", "--config", "none.yaml"], "--config: none.yaml: no such file"),
    "out a file": (["a chair", "-o", "FILE"], "-o: expected a folder, got the file"),
    "no device": (["a chair", "--device", "abacus"], "'abacus' cannot be used"),
    "device without memory": (["a chair", "--device", "meta"], "'meta' cannot be used"),
    "no text": (["\udcff chair"], "expected words, got '\\udcff chair'; write it as plain text"),
    "wrong config": (["a chair", "--config", "WRONG"], "data.voxels_per_metre: expected 1 to"),
    "other config": (["a chair", "--config", "OTHER"], "was trained with 17.0, got 20.0; give"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named(checkpoint, scan, tmp_path, mistake):
    words, message = MISTAKES[mistake]
    for name, size in (("WRONG", 0.0), ("OTHER", 20.0)):
        changed = dataclasses.replace(SMALL, data=DataConfig(voxels_per_metre=size))
        save_yaml(changed, tmp_path / f"{name}.yaml")
    (tmp_path / "FILE.yaml").touch()
    words = [str(tmp_path / f"{w}.yaml") if w in ("WRONG", "OTHER", "FILE") else w for w in words]
    argv = [str(scan), words[0], "-o", str(tmp_path / "out"), "--checkpoint", str(checkpoint)]
    with pytest.raises(InputError) as error:
        predict.main([*argv, *words[1:]])
    assert message in str(error.value)
    assert not (tmp_path / "out").exists()


def test_another_network_is_refused(checkpoint, scan, tmp_path):
    wider = dataclasses.replace(SMALL, network=dataclasses.replace(SMALL.network, width=32))
    save_yaml(wider, tmp_path / "wider.yaml")
    argv = [str(scan), "a chair", "-o", str(tmp_path / "out"), "--checkpoint", str(checkpoint)]
    with pytest.raises(InputError, match=r"best\.pth"):
        predict.main([*argv, "--config", str(tmp_path / "wider.yaml")])


@pytest.mark.slow
def test_no_traceback_reaches_the_user(tmp_path):
    command = [sys.executable, "-m", "detailbase.predict", "none.ply", "a chair", "-o", "out"]
    done = subprocess.run(
        [*command, "--checkpoint", "none.pth"], cwd=tmp_path, capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 2
    assert "none.pth: no such file" in done.stderr
    assert "Traceback" not in done.stderr
