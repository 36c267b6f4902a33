import functools

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detailbase.config import Config, NetworkConfig, TrainConfig
from detailbase.training.state import Training
from tests.mutations import EXAMPLES, is_refused, mutated, mutations

CONFIG = Config(
    network=NetworkConfig(channels=(8, 16), width=16, heads=2, hidden=16, layers=1),
    train=TrainConfig(epochs=10, lr_drops=(0.5, 0.52, 0.8), backbone_lr_scale=0.1),
)


def start():
    return Training.start(CONFIG, 64, torch.device("cpu"))


def step(training):
    for parameter in training.network.parameters():
        parameter.grad = torch.ones_like(parameter)
    training.optimizer.step()
    training.average.update_parameters(training.network)


@functools.cache
def resumed():
    return start()


def resume(path):
    resumed().load(path)
    step(resumed())


def save(path):
    training = start()
    step(training)
    training.seconds["training"] = 2.0
    training.save(path)


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    path = tmp_path_factory.mktemp("states") / "last.pth"
    save(path)
    return torch.load(path)


def test_a_whole_state_is_resumed(state, tmp_path):
    torch.save(state, tmp_path / "last.pth")
    resume(tmp_path / "last.pth")


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_mutated_state_is_refused_or_trains(state, tmp_path, data):
    torch.save(mutated(state, *data.draw(mutations(state))), tmp_path / "last.pth")
    is_refused(resume, tmp_path / "last.pth")


@pytest.mark.parametrize("name", ["exp_avg", "exp_avg_sq", "step"])
def test_moments_of_another_shape_are_refused(state, tmp_path, name):
    for kind in ("fewer rows", "sparse", "meta", "NaN"):
        broken = mutated(state, ("optimizer", "state", 3, name), "tensor", kind)
        torch.save(broken, tmp_path / "last.pth")
        assert is_refused(resume, tmp_path / "last.pth"), kind


def test_rates_follow_from_the_options_alone():
    training = start()
    rates = {}
    for training.epoch in range(10):
        training.set_rates(CONFIG.train)
        rates[training.epoch] = [group["lr"] for group in training.optimizer.param_groups]
    assert rates[4] == [1e-3, 1e-3 * 0.1]
    assert rates[5][0] == 2.5e-4  # two drops fall on epoch 5
    assert rates[9][0] == 1.25e-4
