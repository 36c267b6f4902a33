"""Several settings and seeds of a scene in one command."""

import json

import pytest

from refer3d.runs.errors import InputError
from refersplat.__main__ import main
from refersplat.command import read_many_options
from tests.errors import raises


@pytest.mark.slow
def test_every_setting_is_trained_and_scored_once(balls, tmp_path, capsys):
    options = [str(balls), "--out", str(tmp_path), "--iterations", "3", "--text.encoder", "hash"]
    options += ["--device", "cpu", "--match.refine_steps", "1"]
    main(["many", *options, "--set", "train.iterations=2,3", "--seeds", "4"])
    names = [f"scene_train.iterations={count}_seed=4" for count in (2, 3)]
    table = json.loads((tmp_path / "many.json").read_text())
    assert [run["folder"] for run in table["runs"]] == names
    for name, run in zip(names, table["runs"], strict=True):
        results = json.loads((tmp_path / name / "results.json").read_text())
        assert run["metrics"] == results["metrics"]
        assert results["config"]["train"]["iterations"] == int(name[23])
        assert results["config"]["seed"] == 4
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:4] == ["name", "train.iterations", "seeds", "mIoU"]
    assert [row.split()[:3] for row in rows] == [["scene", "2", "1"], ["scene", "3", "1"]]
    written = [(tmp_path / name / "results.json").stat().st_mtime_ns for name in names]
    main(["many", *options, "--set", "train.iterations=2,3", "--seeds", "4"])
    assert written == [(tmp_path / name / "results.json").stat().st_mtime_ns for name in names]

    changed = ["--set", "train.iterations=2,3", "--seeds", "4", "--rgb.sh_degree", "1"]
    with raises(InputError, "--rgb.sh_degree", names[0], "name another --out"):
        main(["many", *options, *changed])


def test_settings_are_checked_before_anything_runs(balls, tmp_path):
    argv = [str(balls), "--out", str(tmp_path / "out"), "--set", "train.iterations=5,0"]
    with raises(InputError, "--train.iterations", "at least 1", "0"):
        read_many_options(argv)
    assert not (tmp_path / "out").exists()
