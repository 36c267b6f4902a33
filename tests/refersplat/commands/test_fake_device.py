"""Programs on a device that is not the CPU."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import pytest

import refersplat.evaluate
from tests import fake_device

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not fake_device.is_available(), reason="needs a newer PyTorch"),
]


@pytest.mark.parametrize("setting", ["default", "published"])
def test_all_programs_run_and_score_as_on_the_cpu(balls, tmp_path, setting):
    out = tmp_path / "out"
    short = ["--iterations", "60", "--train.iterations", "4", "--train.hold_out_every", "5"]
    short += ["--rgb.densify_from", "20", "--rgb.densify_every", "20", "--match.refine_steps", "5"]
    on_device = ["--device", fake_device.NAME]
    fake_device.run_programs(
        ["refersplat.train", *("-s", balls, "-m", out, "--eval", "--text.encoder", "hash"),
         *("--train.setting", setting, "--train.stages", "2"), *on_device, *short],
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


def test_steps_of_the_referring_stage_do_not_synchronize(balls, tmp_path):
    settings = ("default", "published")
    # Each view comes once in 12 steps. The first run of a process also copies constants.
    runs = [("default", 1), *itertools.product(settings, (12, 24))]
    _, *counts = fake_device.run_programs(
        *(
            ["refersplat.train", *("-s", balls, "-m", tmp_path / f"{setting}{steps}"),
             *("--device", fake_device.NAME, "--text.encoder", "hash", "--iterations", "2"),
             *("--train.setting", setting, "--train.iterations", steps),
             *("--match.refine_steps", "2")]
            for setting, steps in runs
        )
    )  # fmt: skip
    for setting, few, many in zip(settings, counts[::2], counts[1::2], strict=True):
        assert few, "no synchronization was counted, not even for the result"
        assert Counter(many) == Counter(few), setting
