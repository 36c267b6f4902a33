from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from detailbase.model.grouping import PairLogits
from detailbase.model.network import Predictions
from detailbase.training.losses import (
    choice_loss,
    class_loss,
    mask_loss,
    pair_loss,
    phrase_logits,
)

SURE = 50.0


def predict(*masks: list[float], score: float = 0.0) -> Predictions:
    """One round, in which each sentence has one word, query 0."""
    return Predictions(
        tuple(torch.tensor(mask)[None, None] for mask in masks),
        torch.full((1, len(masks), 1), score),
    )


def whole(logits: torch.Tensor) -> PairLogits:
    """Pair logits of all superpoints of a scene."""
    return PairLogits(torch.arange(len(logits)), logits)


def test_the_loss_of_undecided_masks():
    losses = mask_loss(predict([0.0] * 4), [0], [0], [torch.tensor([1, 0, 0, 0])])
    assert_close(losses.cross_entropy, torch.tensor([math.log(2)]))
    assert_close(losses.dice, torch.tensor([1 - (2 * 0.5 + 1) / (4 * 0.5 + 1 + 1)]))
    assert_close(losses.score, torch.tensor([0.0]))  # an IoU of 1/4 trains no score


def test_right_masks_train_the_score_alone():
    target = torch.tensor([1, 0, 1])
    losses = mask_loss(predict([SURE, -SURE, SURE], score=0.2), [0], [0], [target])
    assert_close(losses.score, torch.tensor([0.64]))
    assert_close(losses.total, torch.tensor(0.32))


@pytest.mark.parametrize(("hits", "is_trained"), [(1, False), (2, True)])
def test_half_right_masks_train_no_score(hits, is_trained):
    # IoU 1/2, which is not above a half, and 2/3.
    target = torch.tensor([1] * hits + [0])
    losses = mask_loss(predict([SURE] * (hits + 1)), [0], [0], [target])
    assert bool(losses.score > 0) == is_trained


def test_phrases_count_alike_whatever_their_scenes_size():
    small, large = [1.0, -2.0], [0.5, -1.0, 2.0, 3.0, -0.5]
    targets = [torch.tensor([1, 0]), torch.tensor([0, 0, 1, 1, 0])]
    alone = [
        mask_loss(predict(mask), [0], [0], [target])
        for mask, target in zip((small, large), targets, strict=True)
    ]
    together = mask_loss(predict(small, large), [0, 1], [0, 0], targets)
    for term in ("cross_entropy", "dice"):
        assert_close(getattr(together, term), sum(getattr(one, term) for one in alone) / 2)


def test_score_is_a_mean_over_good_masks():
    predictions = predict([SURE, -SURE], [SURE, SURE], [-SURE, -SURE], score=0.5)
    targets = [torch.tensor(target) for target in ([1, 0], [1, 1], [1, 1])]
    losses = mask_loss(predictions, [0, 1, 2], [0, 0, 0], targets)
    assert_close(losses.score, torch.tensor([0.25]))


def test_every_round_counts():
    torch.manual_seed(0)
    masks, scores = torch.randn(3, 2, 4), torch.rand(3, 1, 2)
    target = [torch.tensor([0, 1, 1, 0])]
    whole = mask_loss(Predictions((masks,), scores), [0], [1], target)
    rounds = [
        mask_loss(Predictions((masks[r : r + 1],), scores[r : r + 1]), [0], [1], target)
        for r in range(3)
    ]
    assert_close(whole.total, sum(one.total for one in rounds))
    assert_close(whole.dice, torch.cat([one.dice for one in rounds]))


def test_empty_target_and_empty_mask_agree():
    losses = mask_loss(predict([-SURE] * 3), [0], [0], [torch.zeros(3)])
    assert_close(losses.total, torch.tensor(0.0))


def test_gradient_is_finite_for_sure_and_wrong_masks():
    mask = torch.tensor([[[1000.0, -1000.0]]], requires_grad=True)
    losses = mask_loss(Predictions((mask,), torch.zeros(1, 1, 1)), [0], [0], [torch.tensor([0, 1])])
    losses.total.backward()
    assert torch.isfinite(mask.grad).all()


def test_superpoints_without_a_class_are_ignored():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [5.0, 5.0]])
    want = torch.nn.functional.cross_entropy(logits[:2], torch.tensor([0, 0]))
    assert_close(class_loss(logits, torch.tensor([0, 0, -100])), want)
    assert class_loss(logits, torch.full((3,), -100)) == 0


def test_each_row_of_the_pairs_counts_like_a_phrase():
    torch.manual_seed(0)
    logits, objects = torch.randn(4, 4), torch.tensor([7, 7, 2, 7])
    rows = [objects == owner for owner in objects]
    as_masks = mask_loss(predict(*logits.tolist()), range(4), [0] * 4, rows, pos_weight=0.5)
    want = as_masks.cross_entropy + as_masks.dice
    assert_close(pair_loss([whole(logits)], objects, pos_weight=0.5), want[0])

    # A superpoint of no object is ignored, and scenes count alike, whatever their size.
    wider = torch.randn(5, 5)
    wider[:4, :4] = logits
    with_stranger = pair_loss([whole(wider)], torch.tensor([7, 7, 2, 7, -1]), pos_weight=0.5)
    assert_close(with_stranger, want[0])
    other = torch.randn(2, 2)
    both = pair_loss(
        [whole(logits), whole(other)], torch.tensor([7, 7, 2, 7, 3, 3]), pos_weight=0.5
    )
    assert_close(
        both, (want[0] + pair_loss([whole(other)], torch.tensor([3, 3]), pos_weight=0.5)) / 2
    )
    assert pair_loss([whole(other)], torch.tensor([-1, -1])) == 0

    # A subset of the rows may be supervised.
    some = PairLogits(torch.tensor([1, 3]), logits[[1, 3]])
    twice = PairLogits(torch.arange(4), logits[[1, 1, 3, 3]])
    assert_close(
        pair_loss([some], objects, pos_weight=0.5),
        pair_loss([twice._replace(rows=torch.tensor([1, 1, 3, 3]))], objects, pos_weight=0.5),
    )
    stranger = PairLogits(torch.tensor([4]), wider[4:])
    assert pair_loss([stranger], torch.tensor([7, 7, 2, 7, -1])) == 0


def test_the_choice_among_objects_by_hand():
    # Superpoints of objects 5, 5 and 7, of 1, 3 and 2 points. One phrase means object 7, one both,
    # one nothing. Both objects' logits are 1: -2 and 2, weighed by their points, and 1.
    masks = torch.tensor([-2.0, 2.0, 1.0]).expand(1, 3, 3)
    choices = torch.tensor([[0.0, 0.0], [0.0, 2.0], [3.0, 9.0]]).view(1, 1, 3, 2)
    targets = [torch.tensor(x).float() for x in ([0, 0, 1], [1, 1, 1], [0, 0, 0])]
    batch = SimpleNamespace(
        superpoint_starts=[0, 3],
        scene_of_sentence=[0],
        sentence_of_phrase=[0, 0, 0],
        query_of_phrase=[0, 1, 2],
        targets=targets,
        objects=torch.tensor([5, 5, 7]),
    )
    predictions = Predictions((masks,), torch.zeros(1, 1, 3), sizes=torch.tensor([1.0, 3.0, 2.0]))
    one, both, nothing = (math.exp(choice) for choice in (0, 0, 3))
    e = math.e
    want = [
        -math.log(e / (one + 2 * e)) + math.log(2),
        -math.log(2 * e / (both + 2 * e)) + math.log(1 + math.exp(-2)),
        -math.log(nothing / (nothing + 2 * e)),
    ]
    got = choice_loss(choices, predictions, batch)  # type: ignore[arg-type]
    assert_close(got, torch.tensor(sum(want) / 3))


def test_phrases_find_their_masks_in_any_order(rng):
    masks = [torch.randn(2, 3, 5, generator=rng), torch.randn(2, 4, 7, generator=rng)]
    sentences, queries = [1, 0, 1, 0], [3, 0, 0, 2]
    logits = phrase_logits(masks, sentences, queries)
    assert logits.shape == (2, 4, 7)
    for row, (sentence, query) in enumerate(zip(sentences, queries, strict=True)):
        size = masks[sentence].shape[2]
        assert torch.equal(logits[:, row, :size], masks[sentence][:, query])
        assert not logits[:, row, size:].any()
