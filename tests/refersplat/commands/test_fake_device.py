"""Programs on a device that is not the CPU."""

from __future__ import annotations

import json
from collections import Counter

import pytest

import refersplat.evaluate
from tests import fake_device

pytestmark = pytest.mark.skipif(not fake_device.is_available(), reason="needs a newer PyTorch")


@pytest.mark.parametrize("setting", ["default", "published"])
def test_all_programs_run_and_score_as_on_the_cpu(balls, tmp_path, setting):
    out = tmp_path / "out"
    short = ["--iterations", "60", "--train.iterations", "4", "--train.keep_aside", "5"]
    short += ["--rgb.densify_from", "20", "--rgb.densify_every", "20", "--match.refine_steps", "5"]
    fake_device.run_programs(
        ["refersplat.train", *("-s", balls, "-m", out, "--eval", "--text.encoder", "hash"),
         *("--train.setting", setting, "--train.stages", "2", "--device", fake_device.NAME), *short],
        ["refersplat.pictures", "-m", out],
        ["refersplat.pictures", "-m", out, "--orbit", "--render.frames", "2",
         *("--sentence", "the red apple")],
        ["refersplat.evaluate", "-m", out],
    )  # fmt: skip
    scored = json.loads((out / "results.json").read_text())
    assert len(list((out / "renders" / "test").rglob("*.jpg"))) == scored["counts"]["cases"]

    refersplat.evaluate.main(["-m", str(out), "--device", "cpu"])
    on_cpu = json.loads((out / "results.json").read_text())
    for name in ("mIoU", "mIoU_amodal", "psnr"):
        assert scored["metrics"][name] == pytest.approx(on_cpu["metrics"][name], abs=1e-4)


@pytest.mark.parametrize("setting", ["default", "published"])
def test_steps_of_the_referring_stage_do_not_synchronize(balls, tmp_path, setting):
    few, many = (
        fake_device.run_programs(
            ["refersplat.train", *("-s", balls, "-m", tmp_path / f"out{steps}"),
             *("--device", fake_device.NAME),
             *("--train.setting", setting, "--text.encoder", "hash", "--iterations", "2"),
             *("--train.iterations", steps, "--match.refine_steps", "2")],
        )
        for steps in (12, 24)  # each view comes once in 12 steps
    )  # fmt: skip
    assert few, "no synchronization was counted, not even for the result"
    assert Counter(many) == Counter(few)
