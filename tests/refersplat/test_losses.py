from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from refersplat.field.losses import contrastive_loss, mask_loss, select_responding, selection_ratio


def test_mask_loss_by_hand():
    logits = torch.tensor([[[0.0, 2.0]]])
    masks = torch.tensor([[[True, False]]])
    expected = (math.log(2) + math.log1p(math.exp(2))) / 2
    assert_close(mask_loss(logits, masks), torch.tensor(expected))


def test_one_positive_is_cross_entropy(rng):
    means, sentences = torch.randn(3, 8, generator=rng), torch.randn(5, 8, generator=rng)
    target = torch.tensor([4, 0, 2])
    positives = torch.nn.functional.one_hot(target, 5).bool()
    similarity = torch.nn.functional.cosine_similarity(means[:, None], sentences, dim=2) / 0.1
    expected = torch.nn.functional.cross_entropy(similarity, target)
    assert_close(contrastive_loss(means, sentences, positives), expected)


def test_several_positives_by_hand():
    means = torch.tensor([[2.0, 0.0]])
    sentences = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-3.0, 0.0]])
    positives = torch.tensor([[True, True, False]])
    expected = math.log1p(math.exp(-1) * (math.exp(-1) + math.exp(0)))
    loss = contrastive_loss(means, sentences, positives, temperature=1.0)
    assert_close(loss, torch.tensor(expected))


@pytest.mark.parametrize("is_positive", [True, False])
def test_nothing_to_compare_costs_nothing(is_positive, rng):
    means = torch.randn(2, 4, generator=rng, requires_grad=True)
    positives = torch.full((2, 3), is_positive)
    loss = contrastive_loss(means, torch.randn(3, 4, generator=rng), positives)
    loss.backward()
    assert loss == 0
    assert (means.grad == 0).all()


def test_contrastive_gradient(rng):
    means = torch.randn(2, 4, generator=rng, dtype=torch.float64, requires_grad=True)
    sentences = torch.randn(3, 4, generator=rng, dtype=torch.float64, requires_grad=True)
    positives = torch.tensor([[True, False, True], [False, True, False]])
    assert torch.autograd.gradcheck(
        lambda a, b: contrastive_loss(a, b, positives), (means, sentences)
    )


def test_ratio_narrows_to_its_floor():
    assert [selection_ratio(step) for step in (0, 1999, 2000, 4000, 10**6)] == pytest.approx(
        [0.1, 0.1, 0.06, 0.036, 0.005]
    )


def test_selects_the_strongest_of_each_sentence():
    responses = torch.tensor([[0.0, 3.0, 1.0, 2.0], [9.0, 0.0, 8.0, 0.0]])
    selected = select_responding(responses, 0.5).sort(dim=1).values
    assert selected.tolist() == [[1, 3], [0, 2]]
    assert select_responding(responses, 0.01).shape == (2, 1)
