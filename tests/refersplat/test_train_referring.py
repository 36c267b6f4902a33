"""Training of the referring field, on a scene of three boxes seen from a ring of cameras."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from refer3d.runs.errors import InputError
from refer3d.text_encoder import HashTextEncoder
from refersplat.cameras import Camera
from refersplat.config import Config, TextConfig, TrainConfig
from refersplat.field.network import ReferringField
from refersplat.referring import train as train_referring
from refersplat.referring.state import RESULT_FILE, STATE_FILE, ReferringState
from refersplat.referring.supervision import BlendCache, supervise
from refersplat.referring.train import hold_out, pick, precompute, train, train_step, without
from refersplat.splats.gaussians import Gaussians
from refersplat.splats.render import frozen_blend

WIDTH, HEIGHT, NUM_VIEWS = 40, 30, 8
OBJECTS = {
    "ball": ("the red ball", "a round thing", "what rolls away"),
    "box": ("the blue box", "a cube of paper", "where one puts things"),
    "cup": ("the white cup", "what one drinks from", "a small pot"),
}


def gaussians() -> Gaussians:
    """60 round Gaussians in three heaps."""
    rng = torch.Generator().manual_seed(0)
    centres = torch.tensor([[-0.8, 0.0, 0.0], [0.0, 0.0, 0.0], [0.8, 0.0, 0.0]])
    means = centres.repeat_interleave(20, dim=0) + 0.12 * torch.randn(60, 3, generator=rng)
    quats = torch.tensor([[1.0, 0, 0, 0]]).repeat(60, 1)
    log_scales = torch.full((60, 3), math.log(0.08))
    return Gaussians(means, log_scales, quats, torch.full((60,), 2.0), torch.zeros(60, 16, 3))


def camera(index: int) -> Camera:
    angle = 0.6 * math.sin(2 * math.pi * index / NUM_VIEWS)
    pose = torch.eye(4)
    pose[0, 0] = pose[2, 2] = math.cos(angle)
    pose[0, 2], pose[2, 0] = math.sin(angle), -math.sin(angle)
    pose[2, 3] = 3.0
    return Camera(pose, 40.0, 40.0, WIDTH / 2, HEIGHT / 2, WIDTH, HEIGHT)


def heap(index: int) -> Tensor:  # [N] bool
    return torch.arange(60) // 20 == index


def scene() -> SimpleNamespace:
    """Views that look like the data package's, with masks rendered from the heaps."""
    views = []
    for number in range(NUM_VIEWS):
        blend = frozen_blend(gaussians(), camera(number))
        objects = []
        for index, sentences in enumerate(OBJECTS.values()):
            mask = blend.blend(heap(index).float()[:, None])[0] > 0.5
            objects.append(SimpleNamespace(sentences=sentences, mask=lambda mask=mask: mask))
        views.append(
            SimpleNamespace(name=f"{number}", camera=camera(number), objects=tuple(objects))
        )
    return SimpleNamespace(path=Path("boxes"), train=views, views=views)


def learn(options, scene, gaussians):
    train(options, scene, supervise(scene, options.train.keep_aside), gaussians)


def config(folder: Path, **train_options) -> Config:
    options = {"iterations": 12, "checkpoint_every": 4, "network_lr": 1e-3, "feature_lr": 1e-2}
    return Config(
        model_path=str(folder),
        text=TextConfig(encoder="hash", cache=""),
        train=TrainConfig(**{**options, **train_options}),
    )


def result(folder: Path) -> dict:
    return torch.load(folder / RESULT_FILE, weights_only=True)


def answering_heap(learned: dict, sentence: str) -> int:
    field = ReferringField(learned["text_dim"])
    field.load_state_dict(learned["field"])
    text = HashTextEncoder()([sentence])
    responses = field.respond(learned["features"], gaussians().means, text)[0]
    means = torch.stack([responses[heap(index)].mean() for index in range(len(OBJECTS))])
    return int(means.argmax())


@pytest.mark.parametrize(
    "options",
    [{}, {"setting": "published", "keep_aside": 0}, {"stages": 2}],
    ids=["default", "published", "two stages"],
)
def test_learns_what_each_sentence_means(tmp_path, options):
    learn(config(tmp_path, iterations=200, **options), scene(), gaussians())
    learned = result(tmp_path)
    for index, sentences in enumerate(OBJECTS.values()):
        for sentence in sentences:
            assert answering_heap(learned, sentence) == index, sentence
    if options.get("keep_aside") == 0:
        assert learned["threshold"] == 0.5
        assert learned["aside"] == []
    else:
        assert learned["aside"] == ["4"]
        assert learned["aside_iou"] > 0.6


def assert_same(one: dict, other: dict) -> None:
    assert torch.equal(one["features"], other["features"])
    assert all(torch.equal(value, other["field"][name]) for name, value in one["field"].items())
    assert one["threshold"] == other["threshold"]
    matchers = [learned["language"]["matcher"] for learned in (one, other)]
    assert matchers[0]["weights"] == matchers[1]["weights"]


def run_in_child(folder: Path, code: str) -> subprocess.Popen:
    here = Path(__file__)
    script = (
        "import importlib.util, sys; from pathlib import Path\n"
        f"spec = importlib.util.spec_from_file_location('t', {str(here)!r})\n"
        "t = importlib.util.module_from_spec(spec); spec.loader.exec_module(t)\n"
        f"folder = Path({str(folder)!r})\n{code}"
    )
    return subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.DEVNULL,
    )


@pytest.mark.parametrize(
    ("stages", "step"), [(1, 3), (1, 12), (2, 3)], ids=["in trial", "behind it", "second stage"]
)
def test_killed_run_goes_on_to_the_same_numbers(tmp_path, stages, step):
    options = {"iterations": 20, "checkpoint_every": 1, "stages": stages}
    learn(config(tmp_path / "whole", **options), scene(), gaussians())

    folder = tmp_path / "killed"
    child = run_in_child(
        folder, f"t.learn(t.config(folder, **{options!r}), t.scene(), t.gaussians())"
    )
    wanted = stages - 1
    while child.poll() is None:
        if (folder / STATE_FILE).exists():
            state = torch.load(folder / STATE_FILE, weights_only=True)
            if state["stage"] == wanted and state["step"] >= step:
                child.send_signal(signal.SIGKILL)
                break
        time.sleep(0.002)
    assert child.wait() == -signal.SIGKILL
    assert not (folder / RESULT_FILE).exists(), "the run ended before it was killed"

    learn(replace(config(folder, **options), resume=True), scene(), gaussians())
    assert_same(result(folder), result(tmp_path / "whole"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 7}, "had seed 0, this one has 7"),
        ({"train": TrainConfig(setting="published")}, "had setting 'default', this one has 'pub"),
    ],
)
def test_resuming_another_run_is_an_error(tmp_path, change, message):
    learn(config(tmp_path, iterations=1), scene(), gaussians())
    other = replace(config(tmp_path, iterations=1), resume=True, **change)
    with pytest.raises(InputError, match=message):
        learn(other, scene(), gaussians())


def test_broken_state_is_an_error(tmp_path):
    learn(config(tmp_path, iterations=1), scene(), gaussians())
    path = tmp_path / STATE_FILE
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=STATE_FILE):
        learn(replace(config(tmp_path), resume=True), scene(), gaussians())


def test_scene_without_sentences_is_an_error(tmp_path):
    bare = scene()
    for view in bare.train:
        view.objects = ()
    with pytest.raises(InputError, match="boxes: no training view has a sentence with a mask"):
        learn(config(tmp_path), bare, gaussians())


def test_empty_masks_teach_nothing():
    some = scene()
    some.train[0].objects[0].mask = lambda: torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    supervision = supervise(some, 0)
    assert [len(view.targets) for view in supervision.views] == [2] + [3] * 7
    assert len(supervision.sentences) == 9


@pytest.mark.parametrize(("keep", "names"), [(0, []), (4, ["2", "6"]), (10, ["4"])])
def test_views_aside_are_not_learned_from(keep, names):
    supervision = supervise(scene(), keep)
    assert [view.name for view in supervision.held_out] == names
    learned = {view.name for view in supervision.views}
    assert learned == {f"{i}" for i in range(NUM_VIEWS)} - set(names)


def test_masks_survive_packing():
    boxes = scene()
    first = supervise(boxes, 0).views[0]
    truth = torch.stack([item.mask() for item in boxes.train[0].objects])
    assert torch.equal(first.masks([2, 0], "cpu"), truth[[2, 0]])


def test_every_view_comes_once_in_an_epoch(tmp_path):
    views = supervise(scene(), 0).views
    order = [pick(config(tmp_path), 0, step, views)[0].name for step in range(16)]
    assert sorted(order[:8]) == sorted(order[8:]) == [f"{i}" for i in range(8)]
    assert order[:8] != order[8:]


def test_sentence_of_a_step_belongs_to_its_target(tmp_path):
    views = supervise(scene(), 0).views
    one = config(tmp_path, sentences_per_step=2)
    seen = set()
    for step in range(60):
        view, chosen = pick(one, 0, step, views)
        assert len({target for target, _ in chosen}) == 2
        assert all(row in view.targets[target].sentences for target, row in chosen)
        seen.update(row for _, row in chosen)
    assert seen == set(range(9))


def test_one_sentence_of_each_object_is_held_out_and_not_taught():
    views = supervise(scene(), 0).views
    groups = SimpleNamespace(sentences=((0, 1, 2), (3, 4), (5, 6, 7, 8)))
    held_out = hold_out(groups, seed=0)
    assert len(held_out) == 2
    assert {row // 3 for row in held_out} <= {0, 1, 2}
    for view, fewer in zip(views, without(views, held_out), strict=True):
        taught = {row for target in fewer.targets for row in target.sentences}
        said = {row for target in view.targets for row in target.sentences}
        assert taught == said - set(held_out)
    everything = tuple(range(9))
    assert without(views, everything) == []


def test_the_published_setting_contrasts_the_first_gaussian_and_counts_padding(
    tmp_path, monkeypatch
):
    given = {}

    def record(gaussians, texts, same):
        given.update(gaussians=gaussians, texts=texts)
        return gaussians.sum()

    monkeypatch.setattr(train_referring, "contrastive_loss", record)
    views = scene()
    found = {}
    for setting in ("default", "published"):
        options = config(tmp_path, setting=setting, contrastive_weight=0.1)
        supervision = supervise(views, 0)
        precomputed = precompute(options, supervision, gaussians(), HashTextEncoder())
        state = ReferringState.start(options, precomputed)
        with torch.no_grad():
            state.features.normal_(generator=torch.Generator().manual_seed(0))
        view, chosen = pick(options, 0, 0, supervision.views)
        asked = precomputed.text[[row for _, row in chosen]]
        met = state.field.interact(
            *(state.features, precomputed.positions, state.field.embed_words(asked), asked.mask)
        )
        first = met.mean(torch.zeros(len(chosen), 1, dtype=torch.int64)).detach()
        padded = state.field.mlp1(precomputed.text.words).mean(dim=1).detach()
        train_step(state, precomputed, view, chosen, options.train)
        is_first = torch.allclose(given["gaussians"].detach(), first, atol=1e-5)
        found[setting] = (is_first, torch.allclose(given["texts"].detach(), padded, atol=1e-5))
    assert found == {"default": (False, False), "published": (True, True)}


def test_a_view_that_sees_no_gaussian_is_passed_over(tmp_path, caplog):
    views = scene()
    pose = views.train[1].camera.world_to_camera.clone()
    pose[2, 3] = -30
    views.train[1].camera = replace(views.train[1].camera, world_to_camera=pose)
    learn(config(tmp_path, keep_aside=0), views, gaussians())
    assert "1 sees no Gaussian" in caplog.text
    assert result(tmp_path)["features"].isfinite().all()


def test_sentences_that_tell_no_object_are_left_to_the_field(tmp_path, caplog):
    views = scene()
    for view in views.train:
        for item in view.objects:
            item.sentences = ("a thing",)
    learn(config(tmp_path), views, gaussians())
    assert "none tells them apart" in caplog.text
    assert result(tmp_path)["language"] is None


def test_blend_matrices_stay_within_their_budget():
    views = scene().train
    size = BlendCache(gaussians())(views[0]).nbytes
    blends = BlendCache(gaussians(), gigabytes=2.5 * size / 2**30)
    values = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    for view in [*views, *views]:
        expected = frozen_blend(gaussians(), view.camera).blend(values)
        assert_close(blends(view).blend(values), expected)
    assert 1 <= len(blends.kept) <= 4
    assert sum(blend.nbytes for blend in blends.kept.values()) <= 2.5 * size
