"""Scores known by hand, and what is seen of objects that hide each other."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from refersplat.cameras import Camera
from refersplat.evaluate import (
    best_threshold_iou,
    break_down,
    lerf_cases,
    metrics,
    training_sentences,
)
from refersplat.inference.samples import Sample
from refersplat.inference.trained_scene import Responses, TrainedScene
from refersplat.language.answer import NO_GROUP, Answer
from refersplat.metrics import THRESHOLDS
from refersplat.splats.gaussians import Gaussians
from refersplat.splats.visibility import visible_share


def case(view="v1", category="cup", sentence="a cup", iou=1.0, **changes):
    values = {
        "view": SimpleNamespace(name=view),
        "target": SimpleNamespace(category=category, sentences=(sentence,)),
        "sentence": sentence,
        "group": None,
        "iou": iou,
        "curve": torch.full((len(THRESHOLDS),), iou),
        "is_empty": False,
        "amodal_iou": None,
    }
    return Sample(**values | changes)


def test_every_sentence_in_every_view_counts_once():
    cases = [case(iou=0.2), case(sentence="a mug", iou=0.6), case(view="v2", iou=1.0)]
    numbers = metrics(cases, cases[:1])
    assert numbers["mIoU"] == pytest.approx(0.6)
    assert numbers["acc@0.25"] == pytest.approx(2 / 3)
    assert numbers["mIoU_training_sentences"] == pytest.approx(0.2)
    assert numbers["mIoU_amodal"] is None


def test_the_lerf_convention_keeps_the_last_sentence_of_a_category_and_skips_what_is_hidden():
    cases = [
        case(sentence="first", iou=0.1),
        case(sentence="last", iou=0.9),
        case(category="fork", iou=0.5),
        case(view="v2", iou=0.0, is_empty=True),
    ]
    assert [found.iou for found in lerf_cases(cases)] == [0.9, 0.5]
    assert metrics(cases, [])["lerf_mIoU"] == pytest.approx(0.7)


def test_the_best_threshold_is_one_for_all_views_of_a_sentence():
    rising, falling = torch.linspace(0, 1, 99), torch.linspace(1, 0, 99)
    alone = [case(sentence="a", curve=rising), case(sentence="b", curve=falling)]
    assert best_threshold_iou(alone) == pytest.approx(1.0)
    together = [case(curve=rising), case(view="v2", curve=falling)]
    assert best_threshold_iou(together) == pytest.approx(0.5)


def test_scores_are_broken_down_by_object_sentence_and_view():
    cases = [case(iou=0.2), case(view="v2", iou=0.4), case(category="fork", sentence="f", iou=0.9)]
    tables = break_down(cases)
    assert tables["per_object"]["cup"]["mIoU"] == pytest.approx(0.3)
    assert tables["per_sentence"]["cup: a cup"]["cases"] == 2
    assert tables["per_view"]["v1"]["mIoU"] == pytest.approx(0.55)
    assert [entry["IoU"] for entry in tables["cases"]] == [0.2, 0.4, 0.9]


def test_a_category_of_two_objects_has_no_training_sentences():
    def view(*objects):
        items = [SimpleNamespace(category=name, sentences=said) for name, said in objects]
        return SimpleNamespace(objects=items)

    train = [view(("cup", ["a cup"]), ("fork", ["a fork"])), view(("cup", ["a mug"]))]
    scene = SimpleNamespace(train=train, test=[])
    assert training_sentences(scene) == {"cup": ["a cup", "a mug"], "fork": ["a fork"]}
    scene.test = [view(("cup", ["left"]), ("cup", ["right"]))]
    assert training_sentences(scene) == {"fork": ["a fork"]}


def test_objects_without_a_category_go_by_their_first_sentence():
    assert case(category=None, sentence="the thing").category == "the thing"


def test_training_sentences_are_gathered_by_category():
    def view(*objects):
        return SimpleNamespace(
            objects=[SimpleNamespace(category=name, sentences=said) for name, said in objects]
        )

    scene = SimpleNamespace(
        train=[view(("cup", ("a", "b")), (None, ("x",))), view(("cup", ("b", "c")))],
        test=[view(("cup", ("d",)))],
    )
    assert training_sentences(scene) == {"cup": ["a", "b", "c"]}


HEIGHT, WIDTH = 24, 32
CAMERA = Camera(torch.eye(4), 30.0, 30.0, WIDTH / 2, HEIGHT / 2, WIDTH, HEIGHT)


class TwoBalls:
    """Stands for a field that knows two Gaussians, one behind the other."""

    encoder = None

    def respond(self, sentences):
        says = {"front": [9.0, -9.0], "behind": [-9.0, 9.0], "nothing": [-9.0, -9.0]}
        logits = torch.tensor([says[sentence] for sentence in sentences])
        return Answer(logits, torch.full((len(sentences),), NO_GROUP))


@pytest.fixture
def trained():
    count = 2
    gaussians = Gaussians(
        means=torch.tensor([[0.0, 0.0, 2.0], [0.0, 0.0, 4.0]]),
        log_scales=torch.tensor([[0.25], [0.4]]).log().expand(count, 3),
        quats=torch.tensor([[1.0, 0.0, 0.0, 0.0]]).expand(count, 4),
        logit_opacities=torch.full((count,), 8.0),
        sh=torch.zeros(count, 16, 3),
    )
    return TrainedScene(
        gaussians, TwoBalls(), 0.9, 0.5, "hand", torch.ones(count, dtype=torch.bool), {}
    )


def test_what_lies_behind_is_hidden_but_whole_in_the_through_view(trained):
    logits = trained.respond(["front", "behind", "nothing"])
    front, behind, nothing = trained.seen(logits, trained.view(CAMERA)) >= 0.5
    whole_front, whole_behind, whole_nothing = trained.amodal(logits, CAMERA) >= 0.5
    middle = HEIGHT // 2, WIDTH // 2
    assert front[middle]
    assert not behind[middle]
    assert whole_behind[middle]
    # An opaque Gaussian is more than half opaque within sqrt(2 ln 2) standard deviations.
    for mask, depth, scale in ((whole_front, 2, 0.25), (whole_behind, 4, 0.4)):
        radius = math.sqrt(2 * math.log(2)) * 30 * scale / depth
        assert mask.sum() == pytest.approx(math.pi * radius**2, rel=0.15)
    assert not nothing.any()
    assert not whole_nothing.any()


def test_groups_and_the_field_have_thresholds_of_their_own(trained):
    assert trained.respond(["front", "nothing"]).thresholds == [0.5, 0.5]
    groups = Answer(torch.zeros(2, 2), torch.tensor([3, NO_GROUP]))
    by_group = SimpleNamespace(respond=lambda sentences: groups)
    assert replace(trained, answerer=by_group).respond(["a", "b"]).thresholds == [0.9, 0.5]


def test_what_is_seen_from_nowhere_is_no_part_of_the_through_view(trained):
    shares = visible_share(trained.gaussians, [CAMERA])
    assert shares[0] > 0.7
    assert shares[1] < 0.5  # only its rim is seen
    aside = replace(CAMERA, world_to_camera=CAMERA.world_to_camera.clone())
    aside.world_to_camera[0, 3] = -1.2  # from the right, both are seen
    assert (visible_share(trained.gaussians, [CAMERA, aside]) > 0.7).all()
    unseen = replace(trained, is_surface=torch.tensor([True, False]))
    logits = trained.respond(["behind"])
    assert not unseen.amodal(logits, CAMERA).any()


def test_a_pixel_that_no_gaussian_covers_is_background(trained):
    logits = Responses(torch.full((1, 2), 9.0), [NO_GROUP], [0.5])
    corner = 0, 0
    assert trained.seen(logits, trained.view(CAMERA))[0][corner] < 0.01
    assert trained.amodal(logits, CAMERA)[0][corner] < 0.01
