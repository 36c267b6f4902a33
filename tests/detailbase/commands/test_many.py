"""Several seeds of a config in one command."""

import json

import pytest

from detailbase.__main__ import main

pytestmark = pytest.mark.slow


def test_every_seed_is_trained_and_scored(rooms, config_path, tmp_path, capsys):
    options = [str(config_path), "--out", str(tmp_path / "out"), "--data.root", str(rooms)]
    options += ["--text.encoder", "hash", "--device", "cpu", "--data.workers", "0"]
    options += ["--network.channels", "8", "16", "--network.width", "32", "--epochs", "1"]
    main(["many", *options, "--seeds", "0,1"])
    table = json.loads((tmp_path / "out" / "many.json").read_text())
    for seed, run in enumerate(table["runs"]):
        assert run["seed"] == seed
        results = json.loads((tmp_path / "out" / run["folder"] / "results.json").read_text())
        assert (results["seed"], results["metrics"]) == (seed, run["metrics"])
    (group,) = table["groups"]
    assert group["seeds"] == 2
    assert group["deviation"]["mIoU"] is not None
    assert "±" in capsys.readouterr().out
    main(["many", *options, "--seeds", "0,1"])  # with nothing to do
