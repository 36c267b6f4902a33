"""Whatever is given wrongly, a user gets one message that says what to do, and no traceback."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest
import torch

from refer3d.runs.errors import InputError, run
from refer3d.runs.states import Finite, load_state, save_state
from refersplat.config import SCORERS
from refersplat.inference.trained_scene import TrainedScene
from refersplat.referring.state import FORMAT
from refersplat.splats.gaussians import load_ply, save_ply
from tests.errors import assert_names, raises

ROOT = Path(__file__).parents[3]


@pytest.fixture
def says(monkeypatch, capsys):
    """Runs a program that must fail; returns what it says."""
    monkeypatch.syspath_prepend(str(ROOT))

    def call(program: str, *argv: object) -> str:
        spec = importlib.util.spec_from_file_location(f"{program}_script", ROOT / f"{program}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, "argv", [f"{program}.py", *map(str, argv)])
        with pytest.raises(SystemExit) as ended:
            run(module.main)
        assert ended.value.code == 2
        # Messages of the parser stand in boxes: their lines are joined again.
        text = " ".join(capsys.readouterr().err.replace("│", " ").split())
        assert "Traceback" not in text
        return text

    return call


@pytest.fixture
def finished(trained, tmp_path):
    """A copy of the trained run, to be broken."""
    return shutil.copytree(trained, tmp_path / "run")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "expected -s or -m, or --config FILE, got neither; --help shows all options"),
        (["-m", "OUT"], "-s: expected the folder of a scene, got nothing"),
        (["-s", "SCENE"], "-m: expected the folder of the run, got nothing"),
        (["-s"], "argument"),
        (["-s", "nowhere", "-m", "OUT"], "nowhere: no such folder, expected a scene with images/"),
        (["-s", "SCENE", "-m", "FILE"], "-m: expected a folder, got the file"),
        (["-s", "SCENE", "-m", "FILE/out"], "Not a directory"),
        (["-s", "SCENE", "-m", "OUT", "--itertions", "9"], "Perhaps you meant: --iterations"),
        (["-s", "SCENE", "-m", "OUT", "--train.feature_rl", "9"], "--train.feature_lr"),
        (["-s", "SCENE", "-m", "OUT", "stray"], "Unrecognized options: stray"),
        (["-s", "SCENE", "-m", "OUT", "--iterations", "many"], "invalid literal for int()"),
        (["-s", "SCENE", "-m", "OUT", "--train.setting", "paper"], "invalid choice 'paper'"),
        (
            ["-s", "SCENE", "-m", "OUT", "--iterations", "0"],
            "--rgb.iterations: expected at least 1, got 0",
        ),
        (
            ["-s", "SCENE", "-m", "OUT", "--train.stages", "3"],
            "--train.stages: expected 1 to 2, got 3",
        ),
        (["-s", "SCENE", "-m", "OUT", "--rgb.sh_degree", "4"], "--rgb.sh_degree: expected 0 to 3"),
        (["-s", "SCENE", "-m", "OUT", "--threshold", "1.5"], "--train.threshold: expected 0 to 1"),
        (
            ["-s", "SCENE", "-m", "OUT", "--rgb.opacity_lr", "nan"],
            "--rgb.opacity_lr: expected at least 0, got nan",
        ),
        (["-s", "SCENE", "-m", "OUT", "--seed", "-1"], "--seed: expected 0 to 4294967295, got -1"),
        (["-s", "SCENE", "-m", "OUT", "--seed", "99999999999999"], "--seed: expected 0 to"),
        (["-s", "SCENE", "-m", "OUT", "--threshold", "-0.3"], "expected 0 to 1, or -1, got -0.3"),
        (
            ["-s", "SCENE", "-m", "OUT", "--data.image_cache_gb", "inf"],
            "--data.image_cache_gb: expected at least 0, got inf",
        ),
        (
            ["-s", "SCENE", "-m", "OUT", "--train.hold_out_every", "1"],
            "--train.hold_out_every: expected at least 2, or 0, got 1",
        ),
        (
            ["-s", "SCENE", "-m", "OUT", "--match.without", *SCORERS],
            "--match.without: expected at least one scorer left",
        ),
        (
            ["-s", "SCENE", "-m", "OUT", *(f"--match.no_{name}" for name in SCORERS)],
            "match.without: expected at least one scorer left",
        ),
        (["--model_path", "OUT"], "-s: expected the folder of a scene, got nothing"),
        (["-s", "SCENE", "-m", "OUT", "-r", "0"], "--data.resolution: expected at least 1, or -1"),
        (["-s", "SCENE", "-m", "OUT", "--eval", "--data.test_views", "99"], "99"),
        (["-s", "SCENE", "-m", "OUT", "--data.images", "pictures"], "pictures"),
        (["-s", "SCENE", "-m", "OUT", "--start_checkpoint", "no.pth"], "no.pth: no such file"),
        (
            ["-s", "SCENE", "-m", "OUT", "--start_checkpoint", "FILE"],
            "cannot be read as a checkpoint",
        ),
        (["-s", "SCENE", "-m", "OUT", "--text.encoder", "SCENE"], "text.encoder:"),
        (["-s", "SCENE", "-m", "OUT", "--config", "no.yaml"], "no.yaml: no such config file"),
        (["--config", "YAML"], "lies in no model's folder; expected configs/<model>/"),
        (["-s", "SCENE", "-m", "OUT", "--config", "YAML"], "known keys: model_path"),
    ],
)
def test_training_is_refused_before_it_starts(says, balls, tmp_path, argv, message):
    (tmp_path / "a.file").write_text("just text")
    (tmp_path / "a.yaml").write_text("qwertyuiop: 1\n")
    places = {"SCENE": balls, "FILE": tmp_path / "a.file", "YAML": tmp_path / "a.yaml"}
    places |= {"OUT": tmp_path / "out", "FILE/out": tmp_path / "a.file" / "out"}
    assert message in says("train", *(places.get(word, word) for word in argv))
    assert not (tmp_path / "out").exists()


def test_a_run_is_not_overwritten(says, finished, balls):
    assert "already holds a run and --resume was not given" in says(
        "train", "-s", balls, "-m", finished
    )


def test_a_run_is_not_gone_on_with_by_other_options(says, finished):
    text = says("train", "-m", finished, "--resume", "--rgb.sh_degree", "1")
    assert f"--rgb.sh_degree: the run in {finished} was trained with 3, got 1" in text
    assert "--start_checkpoint" not in text
    text = says("train", "-m", finished, "--resume", "--train.iterations", "9")
    assert "--train.iterations: " in text
    assert "--start_checkpoint" in text
    assert "iteration_120/point_cloud.ply" in text


@pytest.mark.parametrize("name", ["rgb_state.pt", "referring_state.pt"])
def test_a_cut_state_is_not_gone_on_with(says, finished, name):
    (finished / "timings.json").unlink()
    shutil.rmtree(finished / "point_cloud")
    path = finished / name
    path.write_bytes(path.read_bytes()[:2000])
    assert f"{name}: cannot be read" in says("train", "-m", finished, "--resume")


def test_timings_that_are_none(says, finished):
    (finished / "timings.json").write_text("{")
    assert "timings.json: is not JSON" in says("train", "-m", finished, "--resume")


@pytest.mark.parametrize("program", ["eval", "render"])
def test_a_folder_that_is_no_run(says, tmp_path, program):
    expected = "config.yaml: no such file, so {} is no folder that train.py has written"
    assert expected.format(tmp_path) in says(program, "-m", tmp_path)
    assert expected.format("nowhere") in says(program, "-m", "nowhere")


def test_a_run_of_detailbase_is_not_read(says, balls, tmp_path):
    folder = tmp_path / "exps" / "run"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("model: detailbase\n")
    save_state(folder / "best.pth", {"format": 1, "model": {}, "config": {}})
    words = (folder, "detailbase eval --checkpoint", folder / "best.pth")
    for path in (folder, folder / "best.pth"):
        with raises(InputError, *words):
            TrainedScene.load(path)
    argv = ["-s", balls, "-m", tmp_path / "out", "--start_checkpoint"]
    assert_names(says("train", *argv, folder / "best.pth"), *words)
    for program in ("eval", "render"):
        assert_names(says(program, "-m", folder), folder, "detailbase's programs")


def test_folders_that_are_no_run_say_what_to_name(balls, finished):
    remedy = "train.py -m"
    with raises(InputError, balls, "no trained run", remedy):
        TrainedScene.load(balls)  # a scene
    with raises(InputError, "nowhere", "nothing there", remedy):
        TrainedScene.load("nowhere")
    with raises(InputError, finished / "referring.pt", "a file", remedy):
        TrainedScene.load(finished / "referring.pt")


def lose_sentences(out: Path) -> None:
    (out / "referring.pt").unlink()


def cut_sentences(out: Path) -> None:
    path = out / "referring.pt"
    path.write_bytes(path.read_bytes()[:-2000])


def change(out: Path, **changes: object) -> None:
    state = load_state(out / "referring.pt", FORMAT, {...: Finite})
    save_state(out / "referring.pt", {**state, **changes})


def age_sentences(out: Path) -> None:
    change(out, format=0)


def empty_field(out: Path) -> None:
    change(out, field={})


def lose_parts(out: Path) -> None:
    save_state(out / "referring.pt", {"format": FORMAT, "features": torch.zeros(180, 16)})


def lose_cloud(out: Path) -> None:
    shutil.rmtree(out / "point_cloud")


def cut_cloud(out: Path) -> None:
    (path,) = out.glob("point_cloud/*/point_cloud.ply")
    path.write_bytes(path.read_bytes()[:-100])


def shrink_cloud(out: Path) -> None:
    (path,) = out.glob("point_cloud/*/point_cloud.ply")
    gaussians = load_ply(path)
    save_ply(gaussians.select(torch.arange(gaussians.count) > 3), path)


def edit_config(old: str, new: str, out: Path) -> None:
    path = out / "config.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def misspell_option(out: Path) -> None:
    edit_config("threshold:", "treshold:", out)


def forget_test_views(out: Path) -> None:
    edit_config("  eval: true", "  eval: false", out)


@pytest.mark.parametrize(
    ("breaks", "message"),
    [
        (
            lose_sentences,
            "referring.pt: no such file, so the referring stage has not finished; run train.py",
        ),
        (cut_sentences, "referring.pt: cannot be read"),
        (age_sentences, "referring.pt: has format 0, this code reads 2"),
        (empty_field, "referring.pt: not a result of train.py"),
        (lose_parts, "referring.pt: expected 'field'"),
        (lose_cloud, "point_cloud: holds no iteration_*/point_cloud.ply"),
        (cut_cloud, "export or copy it again"),
        (shrink_cloud, "referring.pt: expected features of"),
        (misspell_option, "config.yaml: train: unknown key 'treshold'; did you mean 'threshold'?"),
        (forget_test_views, "there are no test views (all views train, without --eval)"),
    ],
)
def test_a_broken_run_is_not_scored(says, finished, breaks, message):
    breaks(finished)
    assert message in says("eval", "-m", finished)
    assert not (finished / "results.json").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["-s", "elsewhere"], "elsewhere: no such folder"),
        (["--text.encoder", "auto"], "--text.encoder: "),
        (["--threshold", "2"], "--train.threshold: expected 0 to 1, or -1, got 2.0"),
        (["--seed", "5"], "--seed: the run in {} was trained with 0, got 5"),
        (["--data.test_views", "3"], "--data.test_views: the run in {} was trained with ()"),
        (["--split", "train"], "--render.split: the run in {} was trained with 'test'"),
        (["--match.no_groups"], "--match.groups: the run in {} was trained with True"),
    ],
)
def test_a_run_is_not_scored_with_wrong_options(says, finished, argv, message):
    assert message.format(finished) in says("eval", "-m", finished, *argv)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--views", "frame_00099"], "--views: no view 'frame_00099' among 12"),
        (["--sentence", " "], "--sentence: expected words, got nothing"),
        (["--sentence", "a", "--views", "x"], "--views: no view 'x'"),
        (["--split", "validation"], "invalid choice 'validation'"),
        (["--orbit", "--render.frames", "1"], "--render.frames: expected at least 2, got 1"),
        (["--orbits"], "--orbit"),
    ],
)
def test_nothing_is_drawn_by_wrong_options(says, finished, argv, message):
    assert message in says("render", "-m", finished, *argv)
    assert not (finished / "renders").exists()


def test_a_split_without_views_cannot_be_drawn(says, finished):
    forget_test_views(finished)
    assert "--split test: " in says("render", "-m", finished)


def test_a_backend_that_there_is_not(says, finished, monkeypatch):
    from refer3d.native import load

    monkeypatch.setenv("REFER3D_BACKEND", "cpu-abacus")
    load.cache_clear()
    try:
        assert "REFER3D_BACKEND must be" in says("eval", "-m", finished)
    finally:
        load.cache_clear()
