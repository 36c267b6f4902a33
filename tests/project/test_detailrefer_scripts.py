"""train.sh and test.sh find the files of DetailRefer, or list the missing ones and their source."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECORD = "import sys; print(*sys.argv, file=open('log', 'a'))\n"


@pytest.fixture
def clone(tmp_path):
    """Makes a repository of the scripts, with programs that record their arguments."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    for name in ("train.py", "eval.py", "scripts/prepare_scannet.py"):
        (tmp_path / name).write_text(RECORD)
    (tmp_path / "scripts" / "venv.sh").write_text("use_venv() { :; }\n")
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    return tmp_path


def dataset(folder, *splits, scans="scannetv2/scans"):
    """Makes the files of a dataset, all empty."""
    (folder / "DetailRefer").mkdir(parents=True)
    for split in splits:
        (folder / "DetailRefer" / f"DetailRefer_{split}.json").touch()
    (folder / scans).mkdir(parents=True)
    return folder


def shell(clone, *command):
    """Runs a script; returns its status, its errors, and the calls of programs."""
    (clone / "log").write_text("")
    done = subprocess.run(
        ["bash", *map(str, command)],
        cwd=clone,
        env={"PATH": f"{clone / 'bin'}:/usr/bin:/bin"},
        check=False,
        capture_output=True,
        encoding="utf-8",
    )
    return done.returncode, done.stderr, (clone / "log").read_text().splitlines()


def test_everything_that_is_missing_is_named(clone):
    status, errors, calls = shell(clone, "scripts/train.sh")
    assert (status, calls) == (2, [])
    for name in ("DetailRefer/DetailRefer_train.json", "DetailRefer/DetailRefer_val.json"):
        assert f"data/{name}" in errors
    assert "data/scannetv2/scans/" in errors
    assert "terms of use" in errors
    assert "DetailRefer_test.json" not in errors


def test_only_what_is_needed_is_asked_for(clone):
    dataset(clone / "elsewhere", "train", "val")
    status, errors, _ = shell(clone, "scripts/test.sh", "elsewhere", "--checkpoint", "best.pth")
    assert status == 2
    assert "elsewhere/DetailRefer/DetailRefer_test.json" in errors
    assert "scannetv2/scans" not in errors


def test_scans_are_prepared_beside_them_and_options_are_handed_on(clone):
    dataset(clone / "data", "train", "val")
    status, errors, calls = shell(clone, "scripts/train.sh", "--work_dir", "out", "--epochs", "3")
    assert status == 0, errors
    assert calls == [
        "scripts/prepare_scannet.py --root data --out data/scannetv2 --split all",
        "train.py --config configs/detailbase/detailrefer.yaml --data.root data "
        "--data.prepared data/scannetv2 --work_dir out --epochs 3",
    ]


@pytest.mark.parametrize("option", [("--config", "my.yaml"), ("--config=my.yaml",)])
def test_another_config_takes_the_place_of_the_default(clone, option):
    dataset(clone / "data", "train", "val")
    status, errors, calls = shell(clone, "scripts/train.sh", *option, "--epochs", "3")
    assert status == 0, errors
    assert calls[-1].startswith("train.py --config my.yaml --data.root data ")
    assert calls[-1].endswith("--epochs 3")
    assert calls[-1].count("--config") == 1


def test_labelled_scans_are_described_once_where_the_config_asks_for_it(clone):
    folder = dataset(clone / "data", "train", "val") / "scannetv2/Described"
    (clone / "my.yaml").write_text("data:\n  train_on: [detailrefer, described]\n")
    (clone / "detailbase").mkdir()
    (clone / "detailbase/__main__.py").write_text(RECORD)
    file = "data/scannetv2/Described/described_train.json"
    _, errors, calls = shell(clone, "scripts/train.sh", "--config", "my.yaml")
    assert not errors
    options = f"--out {file} --prepared data/scannetv2 --compose 120"
    assert calls[1].endswith(f"describe --root data {options}")
    folder.mkdir()
    (clone / file).touch()
    assert len(shell(clone, "scripts/train.sh", "--config", "my.yaml")[2]) == 2


def test_a_read_only_dataset_stays_as_it_is(clone):
    folder = dataset(clone / "mini", "test", scans="scans")
    folder.chmod(0o555)
    try:
        status, errors, calls = shell(clone, "scripts/test.sh", folder)
    finally:
        folder.chmod(0o755)
    assert status == 0, errors
    prepare, score = (call.split() for call in calls)
    assert prepare[-3].startswith("exps/prepared/mini-")
    assert prepare[-2:] == ["--split", "val"]
    assert score[-1] == prepare[-3]
    assert score[:3] == ["eval.py", "--config", "configs/detailbase/detailrefer.yaml"]


def test_prepared_scans_are_enough(clone):
    dataset(clone / "data", "test", scans="scannetv2/val")
    (clone / "data/scannetv2/val/scene0000_00_refer.pth").touch()
    status, errors, calls = shell(clone, "scripts/test.sh", "--checkpoint", "best.pth")
    assert status == 0, errors
    assert [call.split()[0] for call in calls] == ["eval.py"]
    assert "--data.prepared data/scannetv2 --checkpoint best.pth" in calls[0]
