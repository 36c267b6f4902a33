"""Mistakes of the user give one line of error, and no file."""

import json
import shutil

import pytest
import torch

from detailbase import Referrer
from refer3d.runs.errors import InputError
from tests.errors import assert_names, raises

ARGUMENTS = {
    "unknown option": (["--network.depth", "3"], "network.depth"),
    "no epochs": (["--epochs", "0"], "--train.epochs: expected at least 1, got 0"),
    "negative rate": (["--train.lr", "-1"], "--train.lr: expected at least 0, got -1.0"),
    "heads": (["--network.width", "30"], "--network.width: expected a multiple of the"),
    "one level": (["--network.channels", "8"], "--network.channels: expected two widths or more"),
    "classes": (["--network.classes", "5"], "--network.classes: expected at least 20, or 0, got 5"),
    "huge seed": (["--seed", "99999999999"], "--seed: expected 0 to 4294967295, got 99999999999"),
    "drops": (["--train.lr_drops", "0.8", "0.2"], "--train.lr_drops: expected ascending shares"),
    "flip": (["--data.augment.flip", "2"], "--data.augment.flip: expected 0 to 1, got 2.0"),
    "weight": (["--train.pos_weight", "7"], "--train.pos_weight: expected 0 to 1, got 7.0"),
    "dataset": (["--data.train_on", "nr3d"], "nr3d"),
    "device": (["--device", "abacus"], "--device: 'abacus' cannot be used"),
    "encoder": (["--text.encoder", "./none"], "'./none' cannot be loaded by transformers"),
    "backbone": (["--train.backbone", "none.pth"], "none.pth: no such checkpoint"),
    "resume": (["--resume"], "holds no last.pth; train first, or name the file"),
    "resume file": (["--resume", "none.pth"], "--resume: none.pth: no such file"),
    "scenes": (["--data.scenes", "scene9*"], "--data.scenes: expected scans that"),
    "root": (["--data.root", "none"], "DetailRefer_train.json: no such file; DetailRefer comes"),
    "prepared": (["--data.prepared", "none"], "run scripts/prepare_scannet.py"),
}


@pytest.mark.parametrize("mistake", ARGUMENTS)
def test_arguments(says, rooms, config_path, tmp_path, monkeypatch, mistake):
    monkeypatch.chdir(tmp_path)
    words, message = ARGUMENTS[mistake]
    options = ["--text.encoder", "hash", "--data.root", rooms, "--work_dir", tmp_path / "run"]
    assert message in says("train", "--config", config_path, *options, *words)
    assert not (tmp_path / "run").exists()


CONFIGS = {
    "unknown key": ("train: {epoch: 3}", "did you mean 'epochs'?"),
    "unknown section": ("network_: {}", "unknown key 'network_'; did you mean 'network'?"),
    "wrong type": ("seed: red", "seed: expected a whole number, got 'red'"),
    "no mapping": ("- seed", "broken.yaml"),
    "no yaml": ("seed: [", "broken.yaml"),
    "no date": ("seed: 2021-13-45", "broken.yaml: is not YAML (month must be in 1..12"),
    "huge number": (f"train: {{lr: {'9' * 401}}}", "lr: expected a number, got 9999"),
}


@pytest.mark.parametrize("mistake", CONFIGS)
def test_configs(says, tmp_path, mistake):
    text, message = CONFIGS[mistake]
    path = tmp_path / "detailbase" / "broken.yaml"
    path.parent.mkdir()
    path.write_text(text)
    assert message in says("train", "--config", path)


def test_a_folder_belongs_to_one_run(says, trained, config_path, rooms):
    before = sorted((path.name, path.stat().st_mtime) for path in trained.iterdir())
    options = ["--config", config_path, "--data.root", rooms, "--work_dir", trained]
    assert "already holds a run and --resume was not given" in says("train", *options)
    assert before == sorted((path.name, path.stat().st_mtime) for path in trained.iterdir())


def test_a_run_is_gone_on_with_as_it_was(says, trained):
    options = ["--config", trained / "config.yaml", "--resume", "--train.lr", "0.5"]
    assert "--train.lr: " in says("train", *options)


@pytest.fixture
def refersplat_run(tmp_path):
    """The folder of a run of the other model."""
    cloud = tmp_path / "output" / "scene" / "point_cloud" / "iteration_7" / "point_cloud.ply"
    cloud.parent.mkdir(parents=True)
    cloud.write_bytes(b"ply\n")
    folder = tmp_path / "output" / "scene"
    (folder / "config.yaml").write_text("model: refersplat\ndata:\n  scene: x\n")
    torch.save({"format": 2, "field": {}, "features": torch.zeros(3, 16)}, folder / "referring.pt")
    torch.save(((7, torch.zeros(3, 3)), 7), folder / "chkpnt7.pth")
    return folder


@pytest.mark.parametrize(
    "file", ["", "referring.pt", "chkpnt7.pth", "point_cloud/iteration_7/point_cloud.ply"]
)
def test_a_run_of_refersplat_is_not_read(says, refersplat_run, config_path, file):
    words = (refersplat_run / file, "refersplat eval -m", refersplat_run)
    with raises(InputError, *words):
        Referrer.load(refersplat_run / file)
    scored = says("eval", "--config", config_path, "--checkpoint", refersplat_run / file)
    assert "refersplat" in scored
    assert "expected a tensor" not in scored


def test_files_that_are_no_checkpoint_say_what_to_name(says, trained, config_path, refersplat_run):
    with raises(InputError, trained, "a folder", "best.pth"):
        Referrer.load(trained)
    argv = ["--config", trained / "config.yaml", "--resume"]
    best = trained / "best.pth"
    words = ("--resume", "last.pth", best, "network alone", trained / "last.pth", "--train.start")
    assert_names(says("train", *argv, best), *words)
    assert_names(says("train", *argv, refersplat_run), "refersplat eval -m", refersplat_run)


@pytest.fixture
def run_folder(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def test_a_cut_state(says, run_folder):
    path = run_folder / "last.pth"
    path.write_bytes(path.read_bytes()[:1000])
    options = ["--config", run_folder / "config.yaml", "--resume"]
    assert "last.pth: cannot be read" in says("train", *options)


def test_a_cut_checkpoint(says, run_folder):
    path = run_folder / "best.pth"
    path.write_bytes(path.read_bytes()[:1000])
    assert "best.pth: cannot be read" in says("eval", "--config", run_folder / "config.yaml")


def test_another_encoder(says, run_folder):
    options = ["--config", run_folder / "config.yaml", "--text.encoder", "auto"]
    assert "was trained with 'hash', got 'auto'; leave the option out" in says("eval", *options)
    (run_folder / "config.yaml").rename(run_folder / "other.yaml")
    options[1] = run_folder / "other.yaml"
    options += ["--checkpoint", run_folder / "best.pth"]
    assert "best.pth" in says("eval", *options)


def test_another_network(says, run_folder):
    options = ["--config", run_folder / "config.yaml", "--network.layers", "3"]
    assert "--network.layers: " in says("eval", *options)
    options[2:] = ["--data.voxels_per_metre=50"]
    assert "was trained with 17.0, got 50.0; leave the option out" in says("eval", *options)
    options[2:] = ["--network.no-use-facts"]  # the old name
    assert "--network.descriptors: " in says("eval", *options)
    (run_folder / "config.yaml").rename(run_folder / "other.yaml")
    options = ["--config", run_folder / "other.yaml", "--checkpoint", run_folder / "best.pth"]
    assert "best.pth" in says("eval", *options, "--network.layers", "3")
    text = says("eval", *options, "--network.heads", "8")
    assert "--network.heads: " in text
    assert "best.pth was trained with 4, got 8; give --config" in text


def test_weights_that_are_no_numbers(says, run_folder):
    state = torch.load(run_folder / "best.pth", weights_only=True)
    state["model"]["input_conv.0.weight"][0] = torch.nan
    torch.save(state, run_folder / "best.pth")
    assert "best.pth" in says("eval", "--config", run_folder / "config.yaml")


def test_no_checkpoint(says, run_folder):
    options = ["--config", run_folder / "config.yaml", "--checkpoint", "none.pth"]
    assert "--checkpoint: none.pth: no such file" in says("eval", *options)


def test_a_broken_description(says, rooms, config_path, tmp_path):
    root = shutil.copytree(rooms, tmp_path / "rooms")
    path = root / "DetailRefer" / "DetailRefer_train.json"
    records = json.loads(path.read_text())
    records[3]["t2o"] = {"99": [1]}
    path.write_text(json.dumps(records))
    options = ["--config", config_path, "--data.root", root, "--text.encoder", "hash"]
    text = says("train", *options, "--work_dir", tmp_path / "run")
    assert "DetailRefer_train.json: record 3" in text
    assert "99" in text
