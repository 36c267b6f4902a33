"""The choice among candidates: the formula by brute force, and planted candidates."""

import itertools

import numpy as np
import pytest

from refersplat.masks.choose import Candidate, choose, distinct, weighted_ious


def disc(row, column, radius, size=(40, 50)):
    rows, columns = np.mgrid[: size[0], : size[1]]
    return np.hypot(rows - row, columns - column) < radius


def noisy(rng, mask, share=0.1):
    return mask ^ (rng.random(mask.shape) < share)


def brute_force(one, other):
    """IoU of two weighed masks, pixel by pixel."""
    low = high = 0.0
    for a, b in zip(one.mask.ravel(), other.mask.ravel(), strict=True):
        x, y = a * one.confidence, b * other.confidence
        low, high = low + min(x, y), high + max(x, y)
    return low / high if high else 0.0


def some_candidates(rng, number=6):
    return [
        Candidate(rng.random((7, 9)) < rng.uniform(0.1, 0.9), rng.uniform(0.3, 1))
        for _ in range(number)
    ]


@pytest.mark.parametrize("seed", range(10))
def test_is_the_argmax_of_the_formula(seed):
    candidates = some_candidates(np.random.default_rng(seed))
    ious = [[brute_force(one, other) for other in candidates] for one in candidates]
    np.testing.assert_allclose(weighted_ious(candidates), ious, atol=1e-12)
    best = int(np.argmax(np.sum(ious, axis=1)))
    choice = choose(candidates)
    assert choice.mask is candidates[best].mask
    assert choice.agreement == pytest.approx((sum(ious[best]) - 1) / (len(candidates) - 1))


def test_large_masks_are_counted_in_blocks(monkeypatch):
    candidates = some_candidates(np.random.default_rng(0))
    whole = weighted_ious(candidates)
    monkeypatch.setattr("refersplat.masks.choose._BLOCK", 10)
    np.testing.assert_array_equal(weighted_ious(candidates), whole)


@pytest.mark.parametrize("seed", range(5))
def test_agreeing_candidates_win_over_surer_noise(seed):
    """Three rough masks of the object, two surer ones elsewhere, and one of nearly everything."""
    rng = np.random.default_rng(seed)
    truth = disc(20, 20, 9)
    right = [Candidate(noisy(rng, truth, 0.02), c) for c in (0.5, 0.45, 0.4)]
    wrong = [Candidate(disc(10, 40, 5), 0.6), Candidate(disc(33, 6, 6), 0.55)]
    everything = [Candidate(~disc(0, 0, 5), 0.5)]
    choice = choose([*wrong, *right, *everything])
    assert any(choice.mask is candidate.mask for candidate in right)


def test_the_surer_of_two_wins():
    one, other = Candidate(disc(20, 20, 9), 0.4), Candidate(disc(20, 24, 9), 0.7)
    assert choose([one, other]).mask is other.mask


def test_a_lone_candidate_is_kept_and_none_is_none():
    choice = choose([Candidate(disc(5, 5, 3), 0.31)])
    assert (choice.confidence, choice.agreement) == (0.31, 1.0)
    assert choose([]) is None


def test_order_does_not_matter():
    """Also where sums tie: equal pairs of masks in two places."""
    pairs = [disc(10, 10, 6), disc(10, 12, 6), disc(30, 40, 6), disc(30, 38, 6)]
    extra = [disc(30, 10, 4)]
    candidates = [Candidate(mask, 0.5) for mask in pairs + extra]
    chosen = {choose(order).mask.tobytes() for order in itertools.permutations(candidates)}
    assert len(chosen) == 1


def test_repeated_detections_do_not_vote_for_themselves():
    noise = Candidate(disc(30, 40, 8), 0.9)
    copies = [Candidate(noise.mask.copy(), c) for c in (0.8, 0.7)]
    right = [Candidate(disc(15, 15 + shift, 8), 0.6) for shift in (0, 2)]
    empty = [Candidate(np.zeros_like(noise.mask), 1.0)]
    kept = distinct([*copies, noise, *empty, *right])
    assert [item.mask is noise.mask for item in kept] == [True, False, False]
    assert (choose([noise, *copies, *right]).mask == noise.mask).all()
    assert any(choose(kept).mask is item.mask for item in right)
