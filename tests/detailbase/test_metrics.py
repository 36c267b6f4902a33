"""Scores by hand and by brute force."""

import itertools
import math

import pytest
import torch

from detailbase.descriptions.references import Phrase, Reference
from detailbase.inference.metrics import (
    METRICS,
    Masks,
    PhraseScores,
    by_kind,
    by_scene,
    calibration,
    ious_by_name,
    oracle_iou,
    summarize,
)


def row(sentence=0, value=0.5, **changes):
    masks = fractional_masks(value)
    scores = {name: metric(masks) for name, metric in METRICS.items()} | changes.pop("scores", {})
    key, num_words = changes.pop("key", "2"), changes.pop("num_words", 10)
    phrases = (Phrase("2", (0,)),) * changes.pop("num_phrases", 2)
    fields = {"scene_id": "scene0000_00", "ann_id": "0", "object_id": "1", **changes}
    reference = Reference(words=("a",) * num_words, phrases=phrases, **fields)
    return PhraseScores(reference, key, sentence, scores)


def fractional_masks(value):
    """Masks with an IoU in hundredths, each point a superpoint."""
    points = torch.arange(100)
    return Masks(points < round(100 * value), points >= 0, points)


@pytest.mark.parametrize(
    ("mask", "target", "expected"),
    [
        ([1, 1, 0, 0], [0, 1, 1, 0], 1 / 3),
        ([1, 1], [1, 1], 1.0),
        ([1, 0], [0, 1], 0.0),
        ([0, 0], [0, 1], 0.0),
        ([0, 1], [0, 0], 0.0),
        ([0, 0], [0, 0], 1.0),
    ],
)
def test_iou_by_hand(mask, target, expected):
    masks = Masks(torch.tensor(mask).bool(), torch.tensor(target).bool(), torch.arange(len(mask)))
    assert masks.iou == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(20))
def test_the_oracle_is_the_best_of_all_unions(seed):
    rng = torch.Generator().manual_seed(seed)
    superpoints = torch.randint(0, 6, (40,), generator=rng)
    share = torch.rand(6, generator=rng)[superpoints]
    target = torch.rand(40, generator=rng) < share
    unions = itertools.product([False, True], repeat=6)
    best = max(Masks(torch.tensor(u)[superpoints], target, superpoints).iou for u in unions)
    assert 0 < best < 1
    assert oracle_iou(Masks(target, target, superpoints)) == pytest.approx(best, abs=1e-12)


def test_the_oracle_of_nothing_is_nothing():
    nothing = torch.zeros(5).bool()
    assert oracle_iou(Masks(nothing, nothing, torch.zeros(5).long())) == 1


def test_superpoints_without_points_do_not_matter():
    target = torch.tensor([True, True, False])
    assert oracle_iou(Masks(target, target, torch.tensor([0, 0, 4]))) == 1


def test_means_over_phrases_and_over_sentences():
    rows = [row(0, 0.2), row(1, 0.25), row(1, 0.5), row(1, 0.9, scores={"oracle": 0.6})]
    assert summarize(rows) == pytest.approx(
        {
            "mIoU": 1.85 / 4,
            "acc@0.25": 2 / 4,  # more than a quarter
            "acc@0.5": 1 / 4,
            "smIoU": (0.2 + 0.55) / 2,
            "oracle": 3.6 / 4,
            **{"holes": 0, "stray": 0, "class": 0},  # objects are unknown
            "phrases": 4,
            "sentences": 2,
        }
    )


def test_nothing_has_no_score():
    assert math.isnan(summarize([])["mIoU"])


def test_kinds_are_scored_apart():
    rows = [
        row(0, 0.1, num_words=50, num_phrases=3),
        row(1, 0.2, num_words=51),
        row(2, 0.3, num_phrases=4),
        row(3, 0.4, kinds=("single target", "st_w_d")),
        row(4, 0.6, kinds=("single target", "st_wo_d")),
        row(5, 0.7, kinds=("multiple targets",)),
        row(6, 0.8, kinds=("unique",)),
    ]
    scores = {name: numbers["mIoU"] for name, numbers in by_kind(rows).items()}
    expected = {"long": 0.2, "complex": 0.3, "single target": 0.5, "multiple targets": 0.7}
    expected |= {"st_w_d": 0.4, "st_wo_d": 0.6, "unique": 0.8}
    assert scores == pytest.approx(expected)


def test_scenes_are_scored_apart():
    scores = by_scene([row(0, 0.1, scene_id="b"), row(1, 0.3, scene_id="a"), row(2, 0.5)])
    assert [*scores] == ["a", "b", "scene0000_00"]
    assert scores["a"]["mIoU"] == 0.3


def test_names_that_users_know_and_none_twice():
    rows = [
        row(0, 0.1, ann_id="7"),
        row(1, 0.2, object_id="3"),
        row(2, 0.3, object_id="4"),
        row(2, 0.4, object_id="4", key="-1"),
    ]
    assert ious_by_name(rows) == {
        "scene0000_00_007_002": 0.1,
        "scene0000_00_3_000_002": 0.2,
        "scene0000_00_4_000_002": 0.3,
        "scene0000_00_000_-01": 0.4,
    }


def test_holes_and_stray_pieces_by_hand():
    # Object 1 is taken but for one of its four points, object 2 by one of four; one point is none.
    instances = torch.tensor([1, 1, 1, 1, 2, 2, 2, 2, -100])
    prediction = torch.tensor([1, 1, 1, 0, 1, 0, 0, 0, 1]).bool()
    masks = Masks(prediction, instances == 1, torch.arange(9), instances)
    assert METRICS["holes"](masks) == pytest.approx(1 / 4)
    assert METRICS["stray"](masks) == pytest.approx(2 / 5)
    nothing = Masks(instances > 5, instances == 1, torch.arange(9), instances)
    assert (METRICS["holes"](nothing), METRICS["stray"](nothing)) == (0, 0)


@pytest.mark.parametrize(
    ("taken", "alike", "is_class"), [({1, 2}, (1, 2), 1), ({1}, (1, 2), 0), ({1}, (1,), 0)]
)
def test_whole_class_is_every_object_of_the_name_where_one_was_meant(taken, alike, is_class):
    instances = torch.tensor([1, 1, 2, 2, 3, 3])
    prediction = torch.isin(instances, torch.tensor([*taken]))
    masks = Masks(prediction, instances == 1, torch.arange(6), instances, alike)
    assert METRICS["class"](masks) == is_class


def test_phrases_whose_name_fits_others_are_a_kind():
    def one(key, *phrases):
        return row(key=key)._replace(reference=Reference("room", "0", words, phrases))

    words = ("a", "chair", "by", "the", "door")
    chair, other, door = Phrase("1", (1,)), Phrase("1", (2,)), Phrase("4", (3,))
    rows = [one("1", chair, door), one("4", chair, door), one("1", other)]
    assert by_kind(rows)["one of several"]["phrases"] == 2
    assert "one of several" not in by_kind(rows[:2])


def test_calibration_compares_scores_with_ious():
    rows = [row(value=iou)._replace(confidence=score) for iou, score in
            [(0.5, 0.72), (0.7, 0.78), (0.1, 0.02), (1.0, 1.0), (0.0, -0.15)]]  # fmt: skip
    rows += [row(value=iou)._replace(confidence=0.0) for iou in (1.0, 0.0)]  # empty masks
    table = calibration(rows)
    assert [(b["from"], b["phrases"]) for b in table["bins"]] == [(0, 2), (0.7, 2), (0.9, 1)]
    assert table["bins"][1]["score"] == pytest.approx(0.75)
    assert table["bins"][1]["mIoU"] == pytest.approx(0.6)
    assert table["error"] == pytest.approx((2 * 0.115 + 2 * 0.15 + 0) / 5)
    assert math.isnan(calibration(rows[-2:])["error"])
