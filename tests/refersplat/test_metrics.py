"""Metrics by hand, and their properties for any masks."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from refersplat.metrics import (
    EMPTY,
    METRICS,
    THRESHOLDS,
    Overlap,
    generalized,
    iou,
    iou_curve,
    mean_scores,
    score,
)


def masks(*rows):
    return torch.tensor([[character == "#" for character in row] for row in rows])


@pytest.mark.parametrize(
    ("prediction", "truth", "expected"),
    [
        (["##..", "...."], ["##..", "...."], 1.0),
        (["##..", "...."], ["..##", "...."], 0.0),
        (["##..", "##.."], [".##.", ".##."], 2 / 6),
        (["####", "####"], ["#...", "...."], 1 / 8),
        (["....", "...."], ["....", "...."], 1.0),
        (["#...", "...."], ["....", "...."], 0.0),
        (["....", "...."], ["#...", "...."], 0.0),
    ],
)
def test_iou_by_hand(prediction, truth, expected):
    assert iou(masks(*prediction), masks(*truth)) == pytest.approx(expected)


def test_generalized_metrics_by_hand():
    few, many = Overlap(0, EMPTY - 1, 0), Overlap(0, EMPTY, 0)
    half = Overlap.of(masks("##..", "##.."), masks("###.", ".#.."))
    assert half == (3, 4, 4)
    assert (half.either, half.score, few.score, many.score) == (5, 0.6, 1, 0)
    scores = generalized([half, few, many])
    assert scores == pytest.approx({"gIoU": 1.6 / 3, "cIoU": 3 / (5 + 2 * EMPTY - 1), "N-acc": 0.5})
    assert generalized([half])["N-acc"] is None


random_masks = st.lists(st.booleans(), min_size=12, max_size=12).map(
    lambda bits: torch.tensor(bits).view(3, 4)
)


@given(random_masks, random_masks)
def test_iou_is_symmetric_and_between_zero_and_one(one, other):
    assert 0 <= iou(one, other) == iou(other, one) <= 1
    assert iou(one, one) == 1


@given(random_masks, random_masks, st.permutations(range(12)))
def test_iou_does_not_depend_on_where_pixels_are(one, other, order):
    assert iou(one, other) == iou(one.flatten()[order], other.flatten()[order])


@given(st.integers(0, 1000), random_masks)
def test_the_curve_is_the_iou_at_each_threshold(seed, truth):
    probabilities = torch.rand(3, 4, generator=torch.Generator().manual_seed(seed))
    probabilities[0, 0] = THRESHOLDS[30]  # a pixel at the threshold counts
    expected = torch.tensor([iou(probabilities >= edge, truth) for edge in THRESHOLDS])
    assert_close(iou_curve(probabilities, truth), expected)


def test_the_curve_of_nothing_found_where_nothing_is():
    assert_close(iou_curve(torch.zeros(2, 2), torch.zeros(2, 2, dtype=torch.bool)), torch.ones(99))


def test_scores_by_hand():
    half = score(masks("##.."), masks("#..."))
    assert half == {"mIoU": 0.5, "acc@0.25": 1.0, "acc@0.5": 1.0}
    assert mean_scores([half, score(masks("####"), masks("#..."))]) == {
        "mIoU": 0.375,
        "acc@0.25": 1.0,
        "acc@0.5": 0.5,
    }
    assert all(math.isnan(value) for value in mean_scores([]).values())


def test_a_metric_is_one_function_in_the_table(monkeypatch):
    def precision(prediction, truth):
        return float((prediction & truth).sum() / prediction.sum())

    monkeypatch.setitem(METRICS, "precision", precision)
    assert mean_scores([score(masks("##.."), masks("#..."))])["precision"] == 0.5
