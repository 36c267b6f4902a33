from __future__ import annotations

import math

import torch
from torch.testing import assert_close

from refersplat.referring.threshold import choose_threshold, mask_probabilities


def test_uncovered_pixel_is_background():
    logits = torch.tensor([[[0.0, 0.0]]])
    transmittance = torch.tensor([[1.0, 0.0]])
    assert_close(mask_probabilities(logits, transmittance), torch.tensor([[[0.0, 0.5]]]))


def test_threshold_is_the_best_of_all(rng):
    pairs = []
    for _ in range(3):
        mask = torch.rand(20, 30, generator=rng) < 0.3
        noise = torch.rand(20, 30, generator=rng)
        pairs.append((0.6 * noise + 0.3 * mask, mask))
    threshold, mean_iou = choose_threshold(pairs)

    def reached(candidate: float) -> float:
        ious = [((p >= candidate) & m).sum() / ((p >= candidate) | m).sum() for p, m in pairs]
        return float(torch.stack(ious).mean())

    assert math.isclose(mean_iou, reached(threshold), abs_tol=1e-6)
    assert mean_iou >= max(reached(step / 100) for step in range(1, 100)) - 0.002


def test_threshold_lies_in_the_middle_of_a_plateau():
    mask = torch.tensor([[True, False]])
    threshold, mean_iou = choose_threshold([(torch.tensor([[0.8, 0.2]]), mask)])
    assert abs(threshold - 0.5) <= 0.02
    assert mean_iou == 1


def test_threshold_without_views_is_one_half():
    threshold, mean_iou = choose_threshold([])
    assert threshold == 0.5
    assert math.isnan(mean_iou)
