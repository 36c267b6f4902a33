"""Relations between objects."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from detailbase.model.relations import NUM_RELATIONS, REACHES, Relations, spatial_relations

ABOVE, RIGHT, RIGHT_NEAR, BEHIND = (len(REACHES) + index for index in (1, 3, 4, 5))


def make_objects(places: Tensor) -> Tensor:  # [S, 3] -> [S, 13]
    """Descriptors of objects of 100 points each, which reach over 10 cm."""
    objects = torch.zeros(len(places), 13, dtype=places.dtype)
    objects[:, 3:6] = places
    objects[:, 9:12] = 0.05
    objects[:, 12] = math.log(100) / 10
    return objects


def test_sides_are_those_that_somebody_in_the_middle_sees():
    # A word means the object in the north; the others stand west, east, below and north of it.
    places = [(0.0, 4.0, 1.0), (-1.0, 4.0, 1.0), (1.0, 4.0, 1.0), (0.0, 4.0, 0.0), (0.0, 5.0, 1.0)]
    around = [(0.0, -4.0, 1.0)] * 5  # the middle lies south
    logits = torch.full((1, 1, 10), -20.0)
    logits[..., 0] = 20.0
    relations = spatial_relations(logits, make_objects(torch.tensor([*places, *around])))[0, 0]
    assert relations.shape == (NUM_RELATIONS, 10)
    itself, west, east, below, north = relations.T[:5]
    assert west[RIGHT] < -0.5
    assert east[RIGHT] > 0.5
    assert abs(north[RIGHT]) < 1e-6
    assert north[BEHIND] > 0.5
    assert below[ABOVE] < -0.9
    assert_close(itself[: len(REACHES)], torch.ones(len(REACHES)))
    assert (west[: len(REACHES)].diff() > 0).all()  # nearer at a longer reach


@pytest.mark.parametrize("mirror", [False, True], ids=["turned", "mirrored"])
def test_turns_change_nothing_and_mirrors_only_the_sides(rng, mirror):
    places = 3 * torch.rand(12, 3, generator=rng, dtype=torch.float64)
    logits = torch.randn(2, 3, 12, generator=rng, dtype=torch.float64)
    cos, sin = math.cos(1.0), math.sin(1.0)
    turn = torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    if mirror:
        turn[:, 0] *= -1
    before = spatial_relations(logits, make_objects(places))
    after = spatial_relations(logits, make_objects(places @ turn.T))
    if mirror:
        before[:, :, [RIGHT, RIGHT_NEAR]] *= -1
    assert_close(after, before, rtol=0, atol=1e-12)


def test_places_stay_exact_under_autocast(rng):
    layer, words = Relations(16, 2), torch.randn(1, 3, 16, generator=rng)
    torch.nn.init.normal_(layer.meaning.weight, generator=rng)
    mask, logits = torch.ones(1, 3, dtype=torch.bool), torch.randn(1, 3, 12, generator=rng)
    objects = make_objects(100 + torch.rand(12, 3, generator=rng))
    exact = layer(words, mask, logits, objects)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = layer(words, mask, logits, objects)
    assert_close(rounded.float(), exact, rtol=0, atol=0.03 * exact.abs().max().item())


def test_a_word_prefers_what_lies_near_the_object_of_another(rng):
    """By gradient steps: the word "chair" of two sentences means the chair near the window."""
    places = torch.tensor([[0.0, 0.0, 0.0], [3.0, 0.0, 0.0], [0.2, 0.0, 0.0], [3.2, 0.0, 0.0]])
    logits = torch.full((2, 2, 4), -9.0)  # objects 0 and 1 are windows, 2 and 3 chairs
    logits[0, 1, 0] = logits[1, 1, 1] = 9.0
    logits[:, 0, 2:] = 9.0
    layer = Relations(16, 2)
    words = torch.randn(1, 2, 16, generator=rng).expand(2, -1, -1)
    mask = torch.ones(2, 2, dtype=torch.bool)
    bias = layer(words, mask, logits, make_objects(places))
    assert bias.shape == (2, 2, 2, 4)
    assert not bias.any()  # no effect in the beginning
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.03)
    for _ in range(40):
        chairs = layer(words, mask, logits, make_objects(places))[:, 0, 0, 2:]
        loss = torch.nn.functional.cross_entropy(chairs, torch.tensor([0, 1]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
