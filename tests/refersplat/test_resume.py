import os
import signal
import subprocess
import sys
import time

import torch

from refersplat.splats.checkpoints import load_gaussians

RUN = """
import sys
from refersplat.config import Config, DataConfig, RgbConfig
from refersplat.data import load_scene
from refersplat.rgb.train import train

scene, out, resume = sys.argv[1:]
rgb = RgbConfig(
    iterations=300, random_points=200, densify_from=20, densify_every=20, densify_until=0.8,
    opacity_reset_every=150, checkpoint_every=25,
)
config = Config(model_path=out, data=DataConfig(scene=scene), rgb=rgb, resume=resume == "resume")
train(config, load_scene(config.data))
"""
DEADLINE = 60


def command(scene, out, resume=""):
    return [sys.executable, "-c", RUN, str(scene), str(out), resume]


def kill_in_the_middle(process, state):
    deadline = time.monotonic() + DEADLINE
    while not state.exists():
        assert process.poll() is None, "ended before its first checkpoint"
        assert time.monotonic() < deadline, "no checkpoint was written"
        time.sleep(0.005)
    time.sleep(0.1)  # somewhere between two checkpoints
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_a_killed_run_goes_on_to_the_same_gaussians(photo_scene, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    with subprocess.Popen(command(photo_scene, killed), stderr=subprocess.DEVNULL) as process:
        kill_in_the_middle(process, killed / "rgb_state.pt")
    stopped = torch.load(killed / "rgb_state.pt", weights_only=True)["iteration"]
    assert 0 < stopped < 300
    subprocess.run(command(photo_scene, killed, "resume"), check=True, capture_output=True)
    subprocess.run(command(photo_scene, whole), check=True, capture_output=True)

    expected, resumed = (load_gaussians(out / "rgb_state.pt") for out in (whole, killed))
    assert expected.count != 200  # densification took part
    for name, tensor in expected.tensors().items():
        assert torch.equal(getattr(resumed, name), tensor), name
