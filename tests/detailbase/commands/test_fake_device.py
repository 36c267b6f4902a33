"""Programs on a device that is not the CPU."""

from __future__ import annotations

import json

import numpy as np
import pytest
from plyfile import PlyData, PlyElement

import detailbase.evaluate
from tests import fake_device
from tests.detailbase.commands.conftest import SMALL

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not fake_device.is_available(), reason="needs a newer PyTorch"),
]


def test_all_programs_run_and_score_as_on_the_cpu(rooms, config_path, tmp_path):
    out, on_device = tmp_path / "run", ["--device", fake_device.NAME]
    options = ["--config", config_path, "--data.root", rooms, "--work_dir", out]
    of_run = ["--config", str(out / "config.yaml"), "--checkpoint", str(out / "best.pth")]
    scan = tmp_path / "scan.ply"
    write_cloud(scan)
    fake_device.run_programs(
        ["detailbase.train", *options, *SMALL, "--epochs", "2", *on_device],
        ["detailbase.evaluate", *of_run, *on_device],
        ["detailbase.predict", scan, "the red box beside the white box", "-o", tmp_path / "masks",
         *("--checkpoint", out / "best.pth"), *on_device],
    )  # fmt: skip
    scored = json.loads((out / "results.json").read_text())
    assert scored["device"].startswith(fake_device.NAME)
    detailbase.evaluate.main([*of_run, "--device", "cpu"])
    on_cpu = json.loads((out / "results.json").read_text())
    assert scored["metrics"]["mIoU"] == pytest.approx(on_cpu["metrics"]["mIoU"], abs=1e-4)
    assert list((tmp_path / "masks").glob("*.ply"))


def write_cloud(path):
    rng = np.random.default_rng(0)
    kinds = [(name, "f4") for name in "xyz"] + [(name, "u1") for name in ("red", "green", "blue")]
    points = np.zeros(2000, dtype=kinds)
    for name in "xyz":
        points[name] = rng.uniform(0, 2, len(points))
    points["red"] = 200
    PlyData([PlyElement.describe(points, "vertex")]).write(path)
