"""Scripts install and train only after a change."""

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
    for name in ("train.py", "render.py", "eval.py"):
        (tmp_path / name).write_text(RECORD)
    (tmp_path / "train.py").write_text(
        RECORD + "import pathlib; pathlib.Path('output/demo').mkdir(parents=True, exist_ok=True)\n"
    )
    for name in ("setup.py", "configs/refersplat/demo.yaml", "data/demo/tabletop/a.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    bin_folder = tmp_path / ".venv" / "bin"
    bin_folder.mkdir(parents=True)
    (bin_folder / "activate").write_text(f'PATH="{bin_folder}:$PATH"\n')
    python = bin_folder / "python"
    python.write_text(
        f'#!/bin/sh\nif [ "$1" = -m ]; then echo "$@" >> log; else exec {sys.executable} "$@"; fi\n'
    )
    python.chmod(0o755)
    return tmp_path


def shell(clone, command, check=True):
    """Runs a command in the clone; returns its calls: a program, or the last argument of pip."""
    (clone / "log").write_text("")
    subprocess.run(["bash", "-c", command], cwd=clone, check=check, capture_output=True)
    calls = [line.split() for line in (clone / "log").read_text().splitlines()]
    return [words[-1] if words[0] == "-m" else words[0] for words in calls]


def test_scripts_are_valid():
    for script in [*ROOT.glob("scripts/*.sh"), ROOT / ".ci" / "run"]:
        subprocess.run(["bash", "-n", str(script)], check=True)


def test_installs_once_and_again_after_a_change(clone):
    use = "set -e; source scripts/venv.sh; use_venv"
    assert shell(clone, use) == ["."]
    assert shell(clone, use) == []
    assert shell(clone, f"{use} dev") == [".[dev]"]
    (clone / "setup.py").write_text("changed")
    assert shell(clone, f"{use} dev") == [".[dev]"]
    assert shell(clone, use) == []


def test_the_demo_trains_once_and_again_after_a_change(clone):
    pictures = ["render.py", "eval.py"]
    demo = "bash scripts/demo.sh"
    assert shell(clone, demo) == [".", "train.py", *pictures]
    assert shell(clone, demo) == pictures
    assert shell(clone, f"{demo} --force") == ["train.py", *pictures]
    (clone / "configs/refersplat/demo.yaml").write_text("seed: 1")
    assert shell(clone, demo) == ["train.py", *pictures]
    assert shell(clone, f"{demo} --fast", check=False) == []


def test_a_demo_that_failed_is_trained_again(clone):
    working = (clone / "train.py").read_text()
    (clone / "train.py").write_text(RECORD + "sys.exit(1)\n")
    assert shell(clone, "bash scripts/demo.sh", check=False) == [".", "train.py"]
    (clone / "train.py").write_text(working)
    assert shell(clone, "bash scripts/demo.sh") == ["train.py", "render.py", "eval.py"]
    assert "--resume" not in (clone / "log").read_text()


def test_a_demo_that_was_stopped_goes_on(clone):
    working = (clone / "train.py").read_text()
    begin = "open('output/demo/config.yaml', 'w').close(); sys.exit(130)\n"
    (clone / "train.py").write_text(RECORD + begin)
    shell(clone, "bash scripts/demo.sh", check=False)
    (clone / "train.py").write_text(working)
    assert shell(clone, "bash scripts/demo.sh") == ["train.py", "render.py", "eval.py"]
    assert (clone / "log").read_text().count("--resume") == 1
    assert shell(clone, "bash scripts/demo.sh") == ["render.py", "eval.py"]
    (clone / "train.py").write_text(RECORD + begin)
    shell(clone, "bash scripts/demo.sh --force", check=False)
    assert "--resume" not in (clone / "log").read_text()
