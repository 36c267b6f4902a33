import signal
import time

import pytest
import torch

from refersplat.config import Config, DataConfig, RgbConfig
from refersplat.data import load_scene
from refersplat.rgb.train import train
from refersplat.splats.checkpoints import load_gaussians
from tests import processes

pytestmark = pytest.mark.slow  # trains three times

DEADLINE = 60
"""Seconds until the first checkpoint."""


def train_photos(scene: str, out: str, resume: bool = False) -> None:
    rgb = RgbConfig(
        iterations=300,
        random_points=200,
        densify_from=20,
        densify_every=20,
        densify_until=0.8,
        opacity_reset_every=150,
        checkpoint_every=25,
    )
    config = Config(model_path=out, data=DataConfig(scene=scene), rgb=rgb, resume=resume)
    train(config, load_scene(config.data))


def kill_between_checkpoints(process, state):
    deadline = time.monotonic() + DEADLINE
    while not state.exists():
        assert process.is_alive(), "ended before its first checkpoint"
        assert time.monotonic() < deadline, "no checkpoint was written"
        time.sleep(0.005)
    time.sleep(0.1)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def test_a_killed_run_resumes_to_the_same_gaussians(photo_scene, tmp_path):
    scene, whole, killed = map(str, (photo_scene, tmp_path / "whole", tmp_path / "killed"))
    process = processes.start(train_photos, scene, killed)
    kill_between_checkpoints(process, tmp_path / "killed" / "rgb_state.pt")
    stopped = torch.load(f"{killed}/rgb_state.pt", weights_only=True)["iteration"]
    assert 0 < stopped < 300
    processes.call(train_photos, scene, killed, True)
    processes.call(train_photos, scene, whole)

    expected, resumed = (load_gaussians(f"{out}/rgb_state.pt") for out in (whole, killed))
    assert expected.count != 200  # densification took part
    for name, tensor in expected.tensors().items():
        assert torch.equal(getattr(resumed, name), tensor), name
