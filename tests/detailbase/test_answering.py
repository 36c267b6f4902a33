"""The choice of whole objects for a phrase."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from detailbase.config import NetworkConfig
from detailbase.descriptions.references import Reference
from detailbase.inference.answering import angles, average, calibrate, choose
from detailbase.inference.metrics import PhraseScores
from detailbase.model.build import build
from detailbase.model.network import Predictions

OBJECTS = torch.tensor([0, 0, 1, 2])
SIZES = torch.tensor([1.0, 9.0, 5.0, 5.0])
LOGITS = torch.tensor([-5.0, 2.0, 1.0, -1.0])
"""Means over objects: 1.3, 1 and -1."""


@pytest.mark.parametrize(
    ("none", "several", "want"),
    [(-9.0, -1.0, [0]), (-9.0, 1.0, [0, 1]), (9.0, -1.0, []), (9.0, 1.0, [])],
    ids=["one", "several", "none", "none of several"],
)
def test_whole_objects_are_chosen(none, several, want):
    mask, probability = choose(LOGITS, OBJECTS, SIZES, torch.tensor([none, several]))
    assert mask.tolist() == [int(index) in want for index in OBJECTS]
    all_of_them = torch.tensor([none, 1.3, 1.0, -1.0]).softmax(dim=0)[1:]
    assert_close(probability, all_of_them[want].sum())


def test_turns_are_averaged():
    assert angles(1) == [0.0]
    assert_close(torch.tensor(angles(4)).cos(), torch.tensor([1.0, 0.0, -1.0, 0.0]))
    objects = (torch.zeros(3, dtype=torch.long),)
    both = [
        Predictions((torch.full((1, 2, 3), x),), torch.full((1, 1, 2), 2 * x), None, None,
                    torch.full((1, 1, 2, 2), 3 * x), objects)
        for x in (1.0, 3.0)
    ]  # fmt: skip
    mean = average(both)
    assert_close(mean.masks[0], torch.full((1, 2, 3), 2.0))
    assert_close(mean.scores, torch.full((1, 1, 2), 4.0))
    assert mean.choices is not None
    assert_close(mean.choices, torch.full((1, 1, 2, 2), 6.0))
    assert mean.objects is objects
    assert average(both[:1]) is both[0]


def test_scores_are_fitted_to_ious():
    sizes = {"channels": (8, 12), "width": 32, "heads": 4, "hidden": 32, "layers": 1}
    network = build(NetworkConfig(**sizes, objects=4, choice=True), text_dim=16)
    reference = Reference("scene", "0", ("a",), ())
    # Scores of 0.9 and 0.5, of which the masks' mean IoUs are 0.7 and 0.3.
    rows = [
        PhraseScores(reference, "0", 0, {"mIoU": iou}, score)
        for score, ious in [(0.9, (1.0, 0.4)), (0.5, (0.6, 0.0))]
        for iou in ious * 500
    ]
    calibrate(network, rows)
    factor, summand = network.decoder.calibration.double()
    # The weight of staying near the start is that of a phrase among 2 000.
    logits = torch.tensor([0.9, 0.5]).double().logit()
    fitted = (factor * logits + summand).sigmoid()
    assert_close(fitted, torch.tensor([0.7, 0.3]).double(), rtol=0, atol=2e-3)
    calibrate(network)
    assert network.decoder.calibration.tolist() == [1.0, 0.0]
