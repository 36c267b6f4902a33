"""Scores by hand, and the visible and amodal masks of objects that hide each other."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from refer3d.runs.errors import InputError
from refersplat.cameras import Camera
from refersplat.evaluate import (
    best_threshold_iou,
    break_down,
    lerf_samples,
    metrics,
    training_sentences,
)
from refersplat.inference.open_vocabulary import locates, score_queries
from refersplat.inference.questions import question_lines, read_questions, score_questions
from refersplat.inference.samples import Sample, evaluate_views
from refersplat.inference.trained_scene import Responses, TrainedScene
from refersplat.language.answer import GroupResponses
from refersplat.language.execute import Result
from refersplat.metrics import THRESHOLDS, generalized
from refersplat.splats.gaussians import Gaussians
from refersplat.splats.visibility import visible_share
from tests.errors import raises

BOUNDS = {"acc@0.25": 0.25, "acc@0.5": 0.5}


def sample(view="v1", category="cup", sentence="a cup", iou=1.0, **changes):
    values = {
        "view": SimpleNamespace(name=view),
        "target": SimpleNamespace(category=category, sentences=(sentence,)),
        "sentence": sentence,
        "groups": None,
        "scores": {name: float(iou >= bound) for name, bound in BOUNDS.items()} | {"mIoU": iou},
        "curve": torch.full((len(THRESHOLDS),), iou),
        "is_empty": False,
        "amodal_iou": None,
    }
    return Sample(**values | changes)


def test_every_sentence_in_every_view_counts_once():
    samples = [sample(iou=0.2), sample(sentence="a mug", iou=0.6), sample(view="v2", iou=1.0)]
    numbers = metrics(samples, samples[:1])
    assert numbers["mIoU"] == pytest.approx(0.6)
    assert numbers["acc@0.25"] == pytest.approx(2 / 3)
    assert numbers["mIoU_training_sentences"] == pytest.approx(0.2)
    assert numbers["mIoU_amodal"] is None


def test_the_lerf_convention_keeps_the_last_sentence_of_a_category_and_skips_hidden_objects():
    samples = [
        sample(sentence="first", iou=0.1),
        sample(sentence="last", iou=0.9),
        sample(category="fork", iou=0.5),
        sample(view="v2", iou=0.0, is_empty=True),
    ]
    assert [selected.iou for selected in lerf_samples(samples)] == [0.9, 0.5]
    assert metrics(samples, [])["lerf_mIoU"] == pytest.approx(0.7)


def test_the_best_threshold_is_one_for_all_views_of_a_sentence():
    rising, falling = torch.linspace(0, 1, 99), torch.linspace(1, 0, 99)
    alone = [sample(sentence="a", curve=rising), sample(sentence="b", curve=falling)]
    assert best_threshold_iou(alone) == pytest.approx(1.0)
    together = [sample(curve=rising), sample(view="v2", curve=falling)]
    assert best_threshold_iou(together) == pytest.approx(0.5)


def test_scores_are_broken_down_by_object_sentence_and_view():
    samples = [
        sample(iou=0.2),
        sample(view="v2", iou=0.4),
        sample(category="fork", sentence="a fork", iou=0.9),
    ]
    tables = break_down(samples)
    assert tables["per_object"]["cup"]["mIoU"] == pytest.approx(0.3)
    assert tables["per_sentence"]["cup: a cup"]["cases"] == 2
    assert tables["per_view"]["v1"]["mIoU"] == pytest.approx(0.55)
    assert [entry["IoU"] for entry in tables["cases"]] == [0.2, 0.4, 0.9]


def test_objects_without_a_category_go_by_their_first_sentence():
    assert sample(category=None, sentence="the thing").category == "the thing"


def test_training_sentences_are_collected_by_category_of_one_object():
    def view(*objects):
        items = [
            SimpleNamespace(category=name, sentences=texts, is_nothing=texts[0] == "nothing")
            for name, texts in objects
        ]
        return SimpleNamespace(objects=items)

    train = [
        view(("cup", ("a", "b")), (None, ("x",)), ("fork", ("f",))),
        view(("cup", ("b", "c")), ("cup", ("nothing",))),
    ]
    scene = SimpleNamespace(train=train, test=[view(("cup", ("d",)))])
    assert training_sentences(scene) == {"cup": ["a", "b", "c"], "fork": ["f"]}
    scene.test = [view(("cup", ("left",)), ("cup", ("right",)))]
    assert training_sentences(scene) == {"fork": ["f"]}


HEIGHT, WIDTH = 24, 32
CAMERA = Camera(torch.eye(4), 30.0, 30.0, WIDTH / 2, HEIGHT / 2, WIDTH, HEIGHT)


class TwoBalls:
    """An answerer of two Gaussians, one behind the other."""

    encoder = None

    language = None

    def respond(self, sentences, camera=None):
        responses = {"front": [9.0, -9.0], "behind": [-9.0, 9.0], "nothing": [-9.0, -9.0]}
        logits = torch.tensor([responses[sentence] for sentence in sentences])
        return GroupResponses(logits, [None] * len(sentences))


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


def test_hidden_objects_have_no_visible_mask_but_a_whole_amodal_one(trained):
    responses = trained.respond(["front", "behind", "nothing"])
    front, behind, nothing = trained.visible(responses, trained.blend(CAMERA)) >= 0.5
    whole_front, whole_behind, whole_nothing = trained.amodal(responses, CAMERA) >= 0.5
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
    groups = GroupResponses(torch.zeros(2, 2), [Result((3,), torch.ones(4), ()), None])
    by_group = SimpleNamespace(respond=lambda sentences, camera: groups)
    assert replace(trained, answerer=by_group).respond(["a", "b"]).thresholds == [0.9, 0.5]


def test_gaussians_hidden_in_all_views_are_left_out_of_amodal_masks(trained):
    shares = visible_share(trained.gaussians, [CAMERA])
    assert shares[0] > 0.7
    assert shares[1] < 0.5  # only its rim is visible
    moved = replace(CAMERA, world_to_camera=CAMERA.world_to_camera.clone())
    moved.world_to_camera[0, 3] = -1.2  # from the right, both are visible
    assert (visible_share(trained.gaussians, [CAMERA, moved]) > 0.7).all()
    unseen = replace(trained, is_surface=torch.tensor([True, False]))
    responses = trained.respond(["behind"])
    assert not unseen.amodal(responses, CAMERA).any()


def test_a_pixel_that_no_gaussian_covers_is_background(trained):
    responses = Responses(torch.full((1, 2), 9.0), [None], [0.5])
    corner = 0, 0
    assert trained.visible(responses, trained.blend(CAMERA))[0][corner] < 0.01
    assert trained.amodal(responses, CAMERA)[0][corner] < 0.01


def test_sentences_of_several_objects_or_none_are_scored_as_in_gres(trained):
    """A pair of halves, a right silence, and an answer where there is nothing."""
    front = trained.mask("front", CAMERA)
    left = torch.arange(WIDTH) < WIDTH // 2

    def view(*objects):
        items = [
            SimpleNamespace(
                sentences=(text,),
                category=text,
                mask=lambda mask=mask: torch.zeros_like(front) if mask is None else mask,
                amodal_mask=lambda: None,
                is_nothing=mask is None,
            )
            for text, mask in objects
        ]
        return SimpleNamespace(camera=CAMERA, objects=items)

    pair = [("front", front & left), ("front", front & ~left)]
    views = [view(*pair, ("nothing", None)), view(("front", None))]
    samples, overlaps = evaluate_views(trained, views, lambda item: item.sentences)
    scores = generalized(overlaps)
    assert scores["gIoU"] == pytest.approx((1 + 1 + 0) / 3)
    assert scores["cIoU"] == 0.5
    assert scores["N-acc"] == 0.5
    assert sum(sample.iou for sample in samples) == pytest.approx(1)  # of each half alone
    assert len(samples) == 2


@pytest.mark.parametrize(
    ("box", "expected"),
    [((40, 20, 60, 40), True), ((53, 20, 60, 40), False), ((40, 33, 60, 40), False)],
)
def test_the_maximum_of_the_smoothed_map_lies_in_a_box(box, expected):
    rows, columns = np.mgrid[:80, :100]
    relevancy = np.exp(-((rows - 30) ** 2 + (columns - 50) ** 2) / 800).astype(np.float32)
    relevancy[1, 1] = 2  # a single pixel is noise
    assert locates(relevancy, [(0, 0, 3, 3), box]) == expected


def test_queries_are_scored_in_2d_and_in_3d(trained):
    """A hidden object has no pixel in 2D, but its Gaussians are selected and rendered alone."""

    camera = Camera(torch.eye(4), 120.0, 120.0, 64.0, 48.0, 128, 96)

    def disc(radius):
        rows, columns = torch.meshgrid(torch.arange(96), torch.arange(128), indexing="ij")
        return (rows + 0.5 - 48) ** 2 + (columns + 0.5 - 64) ** 2 < radius**2

    # An opaque Gaussian has opacity 10/255 at 2.545 standard deviations.
    sizes = {"front": 2.545 * 120 * 0.25 / 2, "behind": 2.545 * 120 * 0.4 / 4, "nothing": 9}
    objects = [
        SimpleNamespace(
            sentences=(text,),
            mask=lambda size=size: disc(size),
            boxes=lambda: [(54, 38, 73, 57)],
        )
        for text, size in sizes.items()
    ]
    lens = SimpleNamespace(width=128)
    view = SimpleNamespace(name="v1", camera=camera, lens=lens, objects=objects)

    def respond(sentences, camera=None):
        logits, _ = TwoBalls().respond(sentences)
        none = Result((), torch.zeros(0), ())
        return GroupResponses(logits, [none if s == "nothing" else None for s in sentences])

    answerer = SimpleNamespace(respond=respond)
    scores, queries = score_queries(replace(trained, answerer=answerer), [view])
    front, behind, nothing = queries
    assert (front.is_located, nothing.is_located) == (True, False)
    assert min(front.iou_3d, behind.iou_3d) > 0.9
    assert nothing.iou_3d == 0
    half = (1.177 / 2.545) ** 2  # half the opacity at 1.177 standard deviations
    assert front.iou_3d_half == pytest.approx(half, abs=0.03)
    assert scores["3d_acc@0.5"] == pytest.approx(2 / 3)
    assert scores["3d_mIoU"] == pytest.approx((front.iou_3d + behind.iou_3d) / 3)


def question(sentence, kind, *targets):
    return {"sentence": sentence, "kind": kind, "targets": {"v1": list(targets)}}


def square(category, left):
    mask = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    mask[:10, left : left + 10] = True
    return SimpleNamespace(category=category, mask=lambda: mask)


@pytest.fixture
def two_squares():
    view = SimpleNamespace(name="v1", camera=CAMERA, objects=[square("cup", 0), square("pan", 20)])
    return SimpleNamespace(path="scene", views=[view])


def test_questions_are_scored_by_kind_and_as_in_gres(two_squares, tmp_path):
    """A right pair, a half of a pair, a right and a wrong silence."""
    cup, pan = (item.mask() for item in two_squares.views[0].objects)
    masks = {"both": cup | pan, "all": cup, "dog": cup & pan, "cat": pan}
    path = tmp_path / "questions.json"
    records = [question("both", "several", "cup", "pan"), question("all", "several", "cup", "pan")]
    records += [question("dog", "none"), question("cat", "none")]
    path.write_text(json.dumps(records))
    scores = score_questions(
        SimpleNamespace(find=lambda text, _: SimpleNamespace(mask=masks[text], trace=(text,))),
        two_squares,
        read_questions(path, two_squares),
    )
    assert scores["kinds"] == {"several": 0.75, "none": 0.5}
    assert scores["total"] == 0.625
    assert scores["gIoU"] == (1 + 0.5 + 1 + 0) / 4
    assert scores["cIoU"] == (200 + 100) / (200 + 200 + 0 + 100)
    assert scores["N-acc"] == 0.5
    assert "several" in "\n".join(question_lines(scores))


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        ({"sentence": "a", "kind": "b"}, "expected the key 'targets'"),
        (question("a", "b", "dog"), "v1: expected a category of scene (cup, pan), got 'dog'; "),
        (question("a", "b", 3), "v1: expected a string, got 3"),
        ({"sentence": "a", "kind": "b", "targets": {"v9": []}}, "a view of scene (v1), got 'v9'; "),
    ],
)
def test_faults_of_questions_are_named(two_squares, tmp_path, record, fault):
    path = tmp_path / "questions.json"
    path.write_text(json.dumps([record]))
    with pytest.raises(InputError, match=r"questions\.json: question 1") as error:
        read_questions(path, two_squares)
    assert fault in str(error.value)


def test_no_score_is_made_of_no_question(two_squares, tmp_path):
    path = tmp_path / "questions.json"
    path.write_text("[]")
    with raises(InputError, path, "at least one question", "none", "another file"):
        read_questions(path, two_squares)
    hidden = SimpleNamespace(category="cup", mask=lambda: torch.zeros(HEIGHT, WIDTH) > 0)
    two_squares.views[0].objects = [hidden]
    path.write_text(json.dumps([question("the cup", "word", "cup")]))
    questions = read_questions(path, two_squares)
    with raises(InputError, "--questions", "hidden", "name others"):
        score_questions(SimpleNamespace(find=None), two_squares, questions)
