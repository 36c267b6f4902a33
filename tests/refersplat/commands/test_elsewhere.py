"""The programs on a device that is not the CPU."""

from __future__ import annotations

import json
from collections import Counter

import pytest

import refersplat.evaluate
from tests import elsewhere

pytestmark = pytest.mark.skipif(not elsewhere.is_available(), reason="needs a newer PyTorch")


@pytest.mark.parametrize("setting", ["default", "published"])
def test_everything_runs_where_the_device_is(balls, tmp_path, setting):
    out = tmp_path / "out"
    short = ["--iterations", "60", "--train.iterations", "4", "--train.keep_aside", "5"]
    short += ["--rgb.densify_from", "20", "--rgb.densify_every", "20", "--match.refine_steps", "5"]
    elsewhere.run_programs(
        ["refersplat.train", *("-s", balls, "-m", out, "--eval", "--text.encoder", "hash"),
         *("--train.setting", setting, "--train.stages", "2", "--device", elsewhere.NAME), *short],
        ["refersplat.pictures", "-m", out],
        ["refersplat.pictures", "-m", out, "--orbit", "--render.frames", "2",
         *("--sentence", "the red apple")],
        ["refersplat.evaluate", "-m", out],
    )  # fmt: skip
    there = json.loads((out / "results.json").read_text())
    assert len(list((out / "renders" / "test").rglob("*.jpg"))) == there["counts"]["cases"]

    # The same run, read on the CPU, gives the same scores.
    refersplat.evaluate.main(["-m", str(out), "--device", "cpu"])
    here = json.loads((out / "results.json").read_text())
    for name in ("mIoU", "mIoU_amodal", "psnr"):
        assert there["metrics"][name] == pytest.approx(here["metrics"][name], abs=1e-4)


@pytest.mark.parametrize("setting", ["default", "published"])
def test_steps_of_the_referring_stage_wait_for_nothing(balls, tmp_path, setting):
    few, many = (
        elsewhere.run_programs(
            ["refersplat.train", *("-s", balls, "-m", tmp_path / f"out{steps}"),
             *("--device", elsewhere.NAME),
             *("--train.setting", setting, "--text.encoder", "hash", "--iterations", "2"),
             *("--train.iterations", steps, "--match.refine_steps", "2")],
        )
        for steps in (12, 24)  # all views come once in 12 steps
    )  # fmt: skip
    assert few, "nothing was ever waited for, not even the result"
    assert Counter(many) == Counter(few)
