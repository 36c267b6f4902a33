"""Training of the referring field, on a scene of three boxes seen from a ring of cameras."""

from __future__ import annotations

import math
import re
import signal
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
from refersplat.field import losses
from refersplat.field.network import ReferringField
from refersplat.referring.state import RESULT_FILE, STATE_FILE, ReferringState
from refersplat.referring.supervision import (
    BlendCache,
    hold_out_sentences,
    sample_batch,
    supervise,
    without_sentences,
)
from refersplat.referring.train import precompute, train, train_step
from refersplat.splats.gaussians import Gaussians
from refersplat.splats.render import frozen_blend
from tests import processes

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
        for index, (category, sentences) in enumerate(OBJECTS.items()):
            mask = blend.blend(heap(index).float()[:, None])[0] > 0.5
            values = {"category": category, "sentences": sentences, "mask": lambda mask=mask: mask}
            objects.append(SimpleNamespace(**values))
        views.append(
            SimpleNamespace(name=f"{number}", camera=camera(number), objects=tuple(objects))
        )
    return SimpleNamespace(path=Path("boxes"), train=views, views=views)


def learn(options, scene, gaussians):
    train(options, scene, supervise(scene, options.train.hold_out_every), gaussians)


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
    [
        pytest.param({}, id="default"),
        pytest.param({"setting": "published", "hold_out_every": 0}, id="published"),
        pytest.param({"stages": 2}, id="two stages", marks=pytest.mark.slow),
    ],
)
def test_learns_what_each_sentence_means(tmp_path, options):
    learn(config(tmp_path, iterations=200, **options), scene(), gaussians())
    learned = result(tmp_path)
    for index, sentences in enumerate(OBJECTS.values()):
        for sentence in sentences:
            assert answering_heap(learned, sentence) == index, sentence
    if options.get("hold_out_every") == 0:
        assert learned["threshold"] == 0.5
        assert learned["aside"] == []
    else:
        assert learned["aside"] == ["4"]
        assert learned["aside_iou"] > 0.6


def assert_same(one: dict, other: dict) -> None:
    assert torch.equal(one["features"], other["features"])
    assert all(torch.equal(value, other["field"][name]) for name, value in one["field"].items())
    assert one["threshold"] == other["threshold"]
    vocabularies = [learned["language"]["vocabulary"] for learned in (one, other)]
    weights = [vocabulary["regressions"]["name"]["weights"] for vocabulary in vocabularies]
    assert torch.equal(*weights)


def learn_boxes(folder: Path, options: dict) -> None:
    learn(config(folder, **options), scene(), gaussians())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stages", "step"), [(1, 3), (1, 35), (2, 3)], ids=["held out", "all train", "second stage"]
)
def test_killed_run_goes_on_to_the_same_numbers(tmp_path, stages, step):
    options = {"iterations": 60, "checkpoint_every": 1, "stages": stages}
    learn_boxes(tmp_path / "whole", options)

    folder = tmp_path / "killed"
    child = processes.start(learn_boxes, folder, options)
    wanted = stages - 1
    while child.is_alive():
        if (folder / STATE_FILE).exists():
            state = torch.load(folder / STATE_FILE, weights_only=True)
            if state["stage"] == wanted and state["step"] >= step:
                child.kill()
                break
        time.sleep(0.002)
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert not (folder / RESULT_FILE).exists(), "the run ended before it was killed"

    learn(replace(config(folder, **options), resume=True), scene(), gaussians())
    assert_same(result(folder), result(tmp_path / "whole"))


def test_resuming_another_or_a_broken_run_is_an_error(tmp_path):
    learn(config(tmp_path, iterations=1), scene(), gaussians())
    resumed = replace(config(tmp_path, iterations=1), resume=True)
    for name, change in (
        ("seed", {"seed": 7}),
        ("setting", {"train": TrainConfig(setting="published")}),
    ):
        with pytest.raises(InputError) as raised:
            learn(replace(resumed, **change), scene(), gaussians())
        message = str(raised.value)
        assert message.startswith(str(tmp_path / STATE_FILE))
        assert f"{name}: expected " in message
        assert "omit --resume" in message
    path = tmp_path / STATE_FILE
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=STATE_FILE):
        learn(resumed, scene(), gaussians())


def test_scene_without_sentences_is_an_error(tmp_path):
    bare = scene()
    for view in bare.train:
        view.objects = ()
    with pytest.raises(InputError, match=r"boxes: .* json/<image>\.json and gt_mask/"):
        learn(config(tmp_path), bare, gaussians())


def test_empty_masks_are_left_out():
    some = scene()
    some.train[0].objects[0].mask = lambda: torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    supervision = supervise(some, 0)
    assert [len(view.targets) for view in supervision.views] == [2] + [3] * 7
    assert len(supervision.sentences) == 9


def test_a_sentence_of_several_objects_has_all_their_pixels():
    some = scene()
    ball, box, _ = some.train[0].objects
    for item in (ball, box):
        item.sentences = (*item.sentences, "both")
    supervision = supervise(some, 0)
    view, row = supervision.views[0], supervision.sentences.index("both")
    (index,) = (i for i, target in enumerate(view.targets) if row in target.sentences)
    assert (view.targets[index].sentences, view.targets[index].count) == ([row], 2)
    assert view.masks([index], "cpu")[0].equal(ball.mask() | box.mask())
    assert [len(view.targets) for view in supervision.views] == [4] + [3] * 7


def test_the_category_of_a_sentence_is_that_of_most_of_its_objects():
    some = scene()
    assert supervise(some, 0).categories == [name for name in OBJECTS for _ in range(3)]
    for view in some.train[:3]:
        view.objects[0].category = "orb"
    for view in some.train:
        view.objects[1].category = None
    first, _, third = OBJECTS
    assert supervise(some, 0).categories == [first] * 3 + [None] * 3 + [third] * 3
    for view in some.train[:5]:
        view.objects[0].category = "orb"
    assert supervise(some, 0).categories[:3] == ["orb"] * 3


@pytest.mark.parametrize(("every", "names"), [(0, []), (4, ["2", "6"]), (10, ["4"])])
def test_held_out_views_do_not_train(every, names):
    supervision = supervise(scene(), every)
    assert [view.name for view in supervision.held_out] == names
    training = {view.name for view in supervision.views}
    assert training == {f"{i}" for i in range(NUM_VIEWS)} - set(names)


def test_masks_survive_packing():
    boxes = scene()
    first = supervise(boxes, 0).views[0]
    truth = torch.stack([item.mask() for item in boxes.train[0].objects])
    assert torch.equal(first.masks([2, 0], "cpu"), truth[[2, 0]])


def test_every_view_comes_once_in_an_epoch(tmp_path):
    views = supervise(scene(), 0).views
    order = [sample_batch(config(tmp_path), 0, step, views)[0].name for step in range(16)]
    assert sorted(order[:8]) == sorted(order[8:]) == [f"{i}" for i in range(8)]
    assert order[:8] != order[8:]


def test_sentence_of_a_step_belongs_to_its_target(tmp_path):
    views = supervise(scene(), 0).views
    one = config(tmp_path, sentences_per_step=2)
    sampled = set()
    for step in range(60):
        view, chosen = sample_batch(one, 0, step, views)
        assert len({target for target, _ in chosen}) == 2
        assert all(row in view.targets[target].sentences for target, row in chosen)
        sampled.update(row for _, row in chosen)
    assert sampled == set(range(9))


def test_one_sentence_of_each_object_is_held_out():
    views = supervise(scene(), 0).views
    groups = SimpleNamespace(sentences=((0, 1, 2), (3, 4), (5, 6, 7, 8)))
    held_out = hold_out_sentences(groups, seed=0)
    assert len(held_out) == 2
    assert {row // 3 for row in held_out} <= {0, 1, 2}
    for view, fewer in zip(views, without_sentences(views, held_out), strict=True):
        training, all_rows = (
            {row for target in v.targets for row in target.sentences} for v in (fewer, view)
        )
        assert training == all_rows - set(held_out)
    assert without_sentences(views, tuple(range(9))) == []


def first_step(folder: Path, **train_options):
    """State, precomputed inputs, a batch of one view, and options before the first step."""
    options = config(folder, **train_options)
    supervision = supervise(scene(), 0)
    precomputed = precompute(options, supervision, gaussians(), HashTextEncoder())
    state = ReferringState.start(options, precomputed)
    with torch.no_grad():
        state.features.normal_(generator=torch.Generator().manual_seed(0))
    return state, precomputed, [sample_batch(options, 0, 0, supervision.views)], options.train


@pytest.mark.parametrize("setting", ["default", "published"])
def test_only_the_published_setting_contrasts_the_first_gaussian_and_counts_padding(
    tmp_path, monkeypatch, setting
):
    arguments = []

    def record(means, sentences, positives):
        arguments[:] = means.detach(), sentences.detach()
        return means.sum()

    monkeypatch.setattr(losses, "contrastive_loss", record)
    state, precomputed, batch, options = first_step(tmp_path, setting=setting)
    ((_, chosen),) = batch
    field, text = state.field, precomputed.text[[row for _, row in chosen]]
    interaction = field.interact(
        *(state.features, precomputed.positions, field.embed_words(text), text.mask)
    )
    first = interaction.mean(torch.zeros(len(chosen), 1, dtype=torch.int64)).detach()
    padded = field.mlp1(precomputed.text.words).mean(dim=1).detach()
    train_step(state, precomputed, batch, options)
    for argument, published in zip(arguments, (first, padded), strict=True):
        assert torch.allclose(argument, published, atol=1e-5) == (setting == "published")


def test_the_documented_loss_joins_the_sum(tmp_path, monkeypatch):
    """The example of docs/extending.md, and the gradients with and without it."""
    page = Path(__file__).parents[2].joinpath("docs", "extending.md").read_text(encoding="utf-8")
    section = page.partition("## A loss of the referring stage")[2].partition("\n## ")[0]
    table = dict(losses.LOSSES)
    gradients = []
    for code in ("", re.findall(r"```python\n(.*?)```", section, re.S)[0]):
        monkeypatch.setattr(losses, "LOSSES", dict(table))
        exec(compile(code, "docs/extending.md", "exec"), {})
        state, *rest = first_step(tmp_path)
        logged = train_step(state, *rest)
        gradients.append(state.features.grad)
    assert list(logged) == ["bce", "contrastive", "entropy"]
    state, *rest = first_step(tmp_path)
    only = {name: loss for name, loss in losses.LOSSES.items() if name == "entropy"}
    monkeypatch.setattr(losses, "LOSSES", only)
    train_step(state, *rest)
    assert state.features.grad.abs().max() > 0
    # Float32 gradients up to 2e-3, those of the entropy up to 2e-5; measured 6.2e-10.
    assert_close(gradients[1], gradients[0] + state.features.grad, rtol=0, atol=3e-9)


def test_all_pairs_of_a_step_weigh_the_same(tmp_path):
    """Whether they are of one view or of several."""
    gradients = []
    for parts in ([[0, 1, 2]], [[0, 1], [2]]):
        state, precomputed, ((view, chosen),), options = first_step(tmp_path)
        batch = [(view, [chosen[index] for index in part]) for part in parts]
        losses = train_step(state, precomputed, batch, options)
        gradients.append([state.features.grad, *losses.values()])
    for one, two in zip(*gradients, strict=True):
        assert_close(two, one, rtol=1e-4, atol=1e-8)


def test_a_loss_of_weight_zero_is_not_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(losses, "contrastive_loss", None)
    assert list(train_step(*first_step(tmp_path, contrastive_weight=0.0))) == ["bce"]


def test_a_view_that_sees_no_gaussian_is_skipped(tmp_path, caplog):
    views = scene()
    pose = views.train[1].camera.world_to_camera.clone()
    pose[2, 3] = -30
    views.train[1].camera = replace(views.train[1].camera, world_to_camera=pose)
    learn(config(tmp_path, hold_out_every=0), views, gaussians())
    assert "1 sees no Gaussian" in caplog.text
    assert result(tmp_path)["features"].isfinite().all()


def test_the_field_answers_alone_where_no_sentence_belongs_to_one_object(tmp_path, caplog):
    views = scene()
    for view in views.train:
        for item in view.objects:
            item.sentences = ("a thing",)
    learn(config(tmp_path), views, gaussians())
    assert "no groups" in caplog.text
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
