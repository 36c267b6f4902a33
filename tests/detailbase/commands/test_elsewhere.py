"""The programs on a device that is not the CPU."""

from __future__ import annotations

import json

import numpy as np
import pytest
from plyfile import PlyData, PlyElement

import detailbase.evaluate
from tests import elsewhere
from tests.detailbase.commands.conftest import SMALL

pytestmark = pytest.mark.skipif(not elsewhere.is_available(), reason="needs a newer PyTorch")


def test_everything_runs_where_the_device_is(rooms, config_path, tmp_path):
    out, there = tmp_path / "run", ["--device", elsewhere.NAME]
    options = ["--config", config_path, "--data.root", rooms, "--work_dir", out]
    asked = ["--config", str(out / "config.yaml"), "--checkpoint", str(out / "best.pth")]
    scan = tmp_path / "scan.ply"
    write_cloud(scan)
    elsewhere.run_programs(
        ["detailbase.train", *options, *SMALL, "--epochs", "2", *there],
        ["detailbase.evaluate", *asked, *there],
        ["detailbase.predict", scan, "the red box beside the white box", "-o", tmp_path / "masks",
         *("--checkpoint", out / "best.pth"), *there],
    )  # fmt: skip
    measured = json.loads((out / "results.json").read_text())
    assert measured["device"].startswith(elsewhere.NAME)
    detailbase.evaluate.main([*asked, "--device", "cpu"])
    here = json.loads((out / "results.json").read_text())
    assert measured["metrics"]["mIoU"] == pytest.approx(here["metrics"]["mIoU"], abs=1e-4)
    assert list((tmp_path / "masks").glob("*.ply"))


def write_cloud(path):
    rng = np.random.default_rng(0)
    kinds = [(name, "f4") for name in "xyz"] + [(name, "u1") for name in ("red", "green", "blue")]
    points = np.zeros(2000, dtype=kinds)
    for name in "xyz":
        points[name] = rng.uniform(0, 2, len(points))
    points["red"] = 200
    PlyData([PlyElement.describe(points, "vertex")]).write(path)
