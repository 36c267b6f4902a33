"""Processes that train a scene together compute what one does."""

import os
import shutil
from dataclasses import fields, replace
from unittest import mock

import pytest
import torch
from torch.testing import assert_close

from refer3d.runs.errors import InputError, run
from refer3d.runs.folder import RunFolder
from refer3d.runs.ranks import gathered, joined, maximum_of, rank, share, sum_gradients
from refer3d.text_encoder import HashTextEncoder
from refersplat import train as program
from refersplat.command import read_options
from refersplat.config import Config, DataConfig, MatchConfig, RgbConfig, TrainConfig
from refersplat.data import load_scene
from refersplat.referring.state import ReferringState
from refersplat.referring.supervision import sample_batch, supervise
from refersplat.referring.train import precompute, train_step
from refersplat.rgb.densify import DensificationStatistics
from refersplat.rgb.exposure import Exposures
from refersplat.rgb.optimizer import Adam
from refersplat.rgb.poses import Motions
from refersplat.rgb.state import RgbState
from refersplat.rgb.train import step, view_order
from refersplat.splats.checkpoints import load_gaussians
from refersplat.splats.gaussians import Gaussians
from tests import processes
from tests.errors import raises
from tests.processes import together, told_by_survivor
from tests.refersplat.splats import assert_equal

pytestmark = pytest.mark.slow  # starts processes

CPU = torch.device("cpu")
FIELDS = [field.name for field in fields(Gaussians)]
RGB = RgbConfig(
    views_per_step=3,
    iterations=40,
    densify_from=2,
    densify_every=4,
    opacity_reset_every=7,
    random_background=True,
)


def fit_photos(balls, steps):
    """Gaussians, corrections and densification statistics after some steps in float64."""
    with joined(CPU):
        scene = load_scene(DataConfig(str(balls)))
        start = RgbState.start(Config(rgb=RGB), scene, CPU)
        adam = Adam.start(start.adam.gaussians.map(torch.Tensor.double))
        statistics = DensificationStatistics.start(adam.gaussians)
        state = RgbState(adam, statistics, start.generator, rows=start.rows)
        count = len(scene.train)
        state.exposures = Exposures(Exposures.start(count, CPU).values.double())
        values, first, second = torch.zeros(3, count, 6, dtype=torch.float64)
        state.motions = Motions(values, first, second, [0] * count)
        views = list(view_order(scene.train, 0, 0, 3 * steps))
        for first in range(0, 3 * steps, 3):
            photos = [(view, view.image().double()) for view in share(views[first : first + 3])]
            step(state, photos, RGB, scene.extent, 400)
        found = state.adam.gaussians.detached().tensors() | vars(state.statistics)
        found |= {f"gradient of {name}": value for name, value in adam.first.tensors().items()}
        found |= {f"pose {name}": value for name, value in vars(state.motions).items()}
        return {
            name: torch.as_tensor(value).numpy()
            for name, value in (found | {"exposures": state.exposures.values}).items()
        }


@pytest.mark.parametrize(("steps", "tolerance"), [(1, 1e-10), (10, 1e-5)])
def test_two_processes_fit_the_gaussians_of_one(balls, steps, tolerance):
    """Three views a step, so that one process has two of them; new Gaussians after each fourth."""
    one = processes.call(fit_photos, balls, steps)
    two = together(2, fit_photos, balls, steps)
    assert abs(one["gradient of means"]).max() > 1e-5
    assert abs(one["pose values"]).max() > 0
    assert one["views"].max() == (3 if steps == 1 else 6)
    if steps == 1:  # Adam makes steps of one size out of any gradients, rounding errors too
        one = {name: value for name, value in one.items() if name not in FIELDS}
    else:
        assert len(one["means"]) == 400
    for name, value in one.items():
        assert_close(two[name], value, rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


def learn_sentences(balls):
    """The field's gradients in the second step in float64, and its losses."""
    with joined(CPU):
        scene = load_scene(DataConfig(str(balls)))
        config = Config(train=TrainConfig(views_per_step=2), match=MatchConfig(groups=False))
        gaussians = RgbState.start(config, scene, CPU).adam.gaussians.detached()
        supervision = supervise(scene, 0)
        precomputed = precompute(
            config, supervision, gaussians.map(torch.Tensor.double), HashTextEncoder()
        )
        text = replace(precomputed.text, words=precomputed.text.words.double())
        precomputed = replace(precomputed, text=text)
        torch.set_default_dtype(torch.float64)
        state = ReferringState.start(config, precomputed)
        with torch.no_grad():
            state.features.normal_(generator=torch.Generator().manual_seed(0))
        for place in (0, 2):
            batch = [sample_batch(config, 0, place + i, supervision.views) for i in (0, 1)]
            losses = train_step(state, precomputed, batch, config.train)
        named = {"features": state.features, **dict(state.field.named_parameters())}
        gradients = {n: p.grad for n, p in named.items() if p.grad is not None}
        return {n: v.numpy() for n, v in (gradients | losses).items()}


def test_two_processes_have_the_gradients_of_one(balls):
    one, two = processes.call(learn_sentences, balls), together(2, learn_sentences, balls)
    assert one.keys() == two.keys()
    assert abs(one["features"]).max() > 0
    for name, value in one.items():
        assert_close(two[name], value, rtol=0, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


def shared():
    with joined(CPU):
        a, b = (torch.full((2,), float(i), requires_grad=True) for i in (1, 2))
        (a.sum() if rank() else b.sum()).backward()
        count = torch.tensor(rank() + 1.0)
        sum_gradients([a, b], count)
        assert count == 3
        assert [one.grad.tolist() for one in (a, b) if one.grad is not None] == [[1, 1], [1, 1]]
        assert maximum_of(torch.tensor([rank(), -rank()])).tolist() == [1, 0]
        return gathered(share("abcde"))


def test_shares_are_the_whole():
    assert together(2, shared) == list("abcde")


def train_and_keep(arguments, iteration, kept):
    """Trains a scene, and copies the run's folder as it is after an iteration."""
    save = RgbState.save

    def save_and_copy(state, path, *more):
        save(state, path, *more)
        if state.iteration == iteration:
            shutil.copytree(path.parent, kept)

    with mock.patch.object(RgbState, "save", save_and_copy):
        program.main(arguments)


def test_a_killed_process_ends_all_with_one_line(balls, tmp_path):
    options = ["-s", str(balls), "-m", str(tmp_path / "out"), "--text.encoder", "hash"]
    target, log = "refersplat.rgb.train.add_gradients", tmp_path / "log"
    status, text = told_by_survivor("refersplat", [*options, "--device", "cpu"], target, log)
    assert status == 130
    assert text.splitlines()[-1] == (
        "stopped; another process of this training has ended; the same command with --resume goes "
        "on from the last checkpoint, if there is one"
    )
    assert "Traceback" not in text


def fail(log):
    """A mistake that every process finds."""
    with log.open("a") as file:
        os.dup2(file.fileno(), 2)

    def main(_):
        with joined(CPU):
            raise InputError("--lr: too large")

    with pytest.raises(SystemExit) as ended:
        run(main)
    return ended.value.code


def test_a_mistake_is_told_once(tmp_path):
    log = tmp_path / "log"
    assert together(2, fail, log) in (1, 2)
    assert log.read_text() == "error: --lr: too large\n"


def refused(arguments):
    with joined(CPU), raises(InputError, "--rgb.views_per_step", "at least 2", "got 1", "fewer"):
        program.main(arguments)


def test_a_training_of_one_process_is_too_small_for_two(balls, tmp_path):
    """Its steps have one view, and so must those that are left."""
    options = ["-s", str(balls), "-m", str(tmp_path), "--text.encoder", "hash"]
    RunFolder(tmp_path, Config).claim(read_options(options, "train"))
    together(2, refused, [*options, "--resume"])


def test_a_training_goes_on_with_another_number_of_processes(balls, tmp_path):
    """One process for the whole training; two, then one, then two: the same Gaussians."""
    alone, pair, single, mixed = (tmp_path / name for name in ("alone", "pair", "single", "mixed"))
    options = [
        *("-s", str(balls), "--eval", "--text.encoder", "hash", "--iterations", "24"),
        *("--rgb.densify_from", "3", "--rgb.densify_every", "4", "--rgb.checkpoint_every", "8"),
        *("--train.iterations", "10", "--train.hold_out_every", "5", "--device", "cpu"),
    ]
    processes.call(program.main, [*options, "-m", str(alone), "--rgb.views_per_step", "2"])
    together(2, train_and_keep, [*options, "-m", str(pair)], 8, single)
    resume = ["--resume", "--device", "cpu", "-m"]
    processes.call(train_and_keep, [*resume, str(single)], 16, mixed)
    together(2, program.main, [*resume, str(mixed)])

    results = [torch.load(out / "referring.pt", weights_only=True) for out in (alone, pair, mixed)]
    clouds = [load_gaussians(out / "rgb_state.pt") for out in (alone, pair, mixed)]
    for result, cloud in zip(results[1:], clouds[1:], strict=True):
        assert_equal(cloud, clouds[0])  # the sum of two gradients has no order
        assert result["aside_iou"] == pytest.approx(results[0]["aside_iou"], abs=0.02)
