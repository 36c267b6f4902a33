from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from refer3d.runs.errors import InputError
from refersplat.config import Config, RgbConfig
from refersplat.referring.state import STATE_FILE as REFERRING
from refersplat.referring.state import ReferringState
from refersplat.rgb.densify import DensificationStatistics
from refersplat.rgb.exposure import Exposures
from refersplat.rgb.optimizer import Adam, learning_rates
from refersplat.rgb.poses import Motions
from refersplat.rgb.state import STATE_FILE, RgbState
from refersplat.splats.checkpoints import load_gaussians
from tests.errors import raises
from tests.mutations import EXAMPLES, is_refused, mutated, mutations, places
from tests.refersplat.splats import random_gaussians

COUNT, EXTENT = 7, 2.5
VIEWS = [SimpleNamespace(name="a"), SimpleNamespace(name="b")]
IDENTITY = {"seed": 0, "encoder": "hash-64", "Gaussians": COUNT}
RATES = learning_rates(RgbConfig(), EXTENT, 1)


def rgb_step(adam):
    for tensor in adam.gaussians.tensors().values():
        tensor.grad = torch.ones_like(tensor)
    adam.step(RATES)


def start_referring():
    text = SimpleNamespace(words=torch.zeros(1, 1, 64))
    return ReferringState.start(
        Config(), SimpleNamespace(positions=torch.zeros(COUNT, 3), text=text)
    )


def referring_step(state):
    for parameter in (state.features, *state.field.parameters()):
        parameter.grad = torch.ones_like(parameter)
    state.optimizer.step()


def save_states(folder):
    rng = torch.Generator().manual_seed(0)
    adam = Adam.start(random_gaussians(rng, COUNT))
    rgb_step(adam)
    statistics = DensificationStatistics.start(adam.gaussians)
    corrections = Exposures.start(len(VIEWS), "cpu"), Motions.start(len(VIEWS), "cpu")
    rgb = RgbState(adam, statistics, rng, 10, {"a": 0, "b": 1}, *corrections)
    rgb.save(folder / STATE_FILE, VIEWS, EXTENT)
    referring = start_referring()
    referring_step(referring)
    referring.teacher = {**referring.learned(), "threshold": 0.4}
    referring.held_out_scores = torch.zeros(2, 3)
    referring.save(folder / REFERRING, IDENTITY)


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    folder = tmp_path_factory.mktemp("states")
    save_states(folder)
    return {name: torch.load(folder / name) for name in (STATE_FILE, REFERRING)}


def resume_rgb(path):
    state = RgbState.load(path, VIEWS, EXTENT, "cpu")
    rgb_step(state.adam)
    if state.motions:
        state.motions.step(1, torch.ones(6), 0.1)
    state.adam.keep(torch.ones(COUNT, dtype=torch.bool))


def resume_referring(path):
    state = start_referring()
    state.load(path, IDENTITY)
    referring_step(state)


READERS = {STATE_FILE: resume_rgb, REFERRING: resume_referring}


def test_whole_states_are_resumed(states, tmp_path):
    for name, read in READERS.items():
        torch.save(states[name], tmp_path / name)
        read(tmp_path / name)
    assert load_gaussians(tmp_path / STATE_FILE).count == COUNT


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_mutated_state_is_refused_or_trains(states, tmp_path, name, data):
    mutation = data.draw(mutations(states[name]))
    torch.save(mutated(states[name], *mutation), tmp_path / name)
    is_refused(READERS[name], tmp_path / name)
    if name == STATE_FILE:
        is_refused(load_gaussians, tmp_path / name)


@pytest.mark.parametrize("name", READERS)
def test_no_moment_of_another_shape_is_taken(states, tmp_path, name):
    moments = [p for p in places(states[name]) if {"first", "second", "exp_avg"} & {*p[:-1], p[-1]}]
    moments = [p for p in moments if isinstance(at(states[name], p), torch.Tensor)]
    assert len(moments) >= 10
    for place in moments:
        torch.save(mutated(states[name], place, "tensor", "fewer rows"), tmp_path / name)
        assert is_refused(READERS[name], tmp_path / name), place


def test_a_stopped_run_goes_on_with_its_own_views(states, tmp_path):
    path, identity = tmp_path / REFERRING, IDENTITY | {"training views": "a b"}
    torch.save(states[REFERRING], path)
    start_referring().load(path, identity)  # of an earlier version
    torch.save(states[REFERRING] | {"identity": identity}, path)
    start_referring().load(path, identity)
    with raises(InputError, path, "training views", "'a c'", "'a b'", "--resume"):
        start_referring().load(path, identity | {"training views": "a c"})


def at(state, place):
    for name in place:
        state = state[name]
    return state
