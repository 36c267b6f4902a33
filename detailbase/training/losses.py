"""What training asks of every round of predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from detailbase.model.network import Predictions
from detailbase.model.objects import Asked
from detailbase.scans.clouds import NONE
from refer3d.runs.device import to_device

SCORE_WEIGHT = 0.5
LARGEST_WEIGHT = 20.0
"""The most that a superpoint inside weighs in the cross-entropy; one outside weighs 1."""
GOOD_ENOUGH = 0.5
"""Only masks of a higher IoU teach the score; it would learn to say 0 otherwise."""


class Losses(NamedTuple):
    """The terms of each of R rounds, each a mean over phrases, and what to descend on."""

    total: Tensor
    """[], the sum of all terms over all rounds, that of scores weighted."""
    cross_entropy: Tensor
    """[R], over each phrase's superpoints."""
    dice: Tensor
    """[R]."""
    score: Tensor
    """[R], squared error of the score as an IoU; 0 where no mask is good enough."""


def loss(
    predictions: Predictions,
    sentence_of_phrase: Sequence[int],
    query_of_phrase: Sequence[int],
    targets: Sequence[Tensor],
    balance: float = 0.0,
) -> Losses:
    """Compares the masks of P phrases with where their objects are.

    Args:
        predictions: What the network said.
        sentence_of_phrase: Each phrase's sentence.
        query_of_phrase: Which query answers for the phrase: its word's index + 1, or 0.
        targets: For each phrase [S], 1 at superpoints of its objects, else 0.
        balance: How far the cross-entropy weighs the few superpoints inside like the many outside:
            0, as published, not at all; 1 wholly, up to ``LARGEST_WEIGHT``.
    """
    sentences, queries = list(map(int, sentence_of_phrase)), list(map(int, query_of_phrase))
    answers = [  # [R, S] each
        predictions.masks[sentence][:, query]
        for sentence, query in zip(sentences, queries, strict=True)
    ]
    logits = pad_sequence([answer.T for answer in answers], batch_first=True)  # [P, S, R]
    logits = _unshortened(logits)
    target = pad_sequence(list(targets), batch_first=True).to(logits)[..., None]
    sizes = to_device(torch.tensor([len(one) for one in targets]), logits.device)[:, None]
    is_real = (torch.arange(logits.shape[1], device=logits.device) < sizes)[..., None]
    of_sentence, of_query = to_device(torch.tensor([sentences, queries]), logits.device)
    scores = _unshortened(predictions.scores[:, of_sentence, of_query].T)  # [P, R]

    cross_entropy, dice = (x.mean(dim=0) for x in mask_losses(logits, target, is_real, balance))
    score = score_loss(scores, overlap((logits >= 0) & is_real, target > 0))
    total = (cross_entropy + dice + SCORE_WEIGHT * score).sum()
    return Losses(total, cross_entropy, dice, score)


def class_loss(
    logits: Tensor,  # [S, classes]
    classes: Tensor,  # [S], ``NONE`` where a superpoint has none
) -> Tensor:  # []
    """Cross-entropy of superpoints' classes; 0 where none is known."""
    known = classes >= 0
    logits = _unshortened(logits).where(known[:, None], 0)
    error = F.cross_entropy(logits, classes, reduction="sum", ignore_index=NONE)
    return error / known.sum().clamp(min=1)


def object_loss(
    asked: Sequence[Asked],
    objects: Tensor,  # [S of all scenes], negative where a superpoint has none
    balance: float = 0.0,
) -> Tensor:  # []
    """Each superpoint asks for the others of its object, and is answered like a phrase.

    The mean over scenes; superpoints of no object neither ask nor answer.
    """
    total = objects.new_zeros((), dtype=torch.float32)
    owners = objects.split([scene.logits.shape[1] for scene in asked])
    for (rows, logits), owner in zip(asked, owners, strict=True):
        known = owner >= 0
        target = ((owner[rows, None] == owner) & known)[..., None].float()  # [A, S, 1]
        is_real = known[None, :, None].expand_as(target)
        answered = _unshortened(logits)[..., None]
        cross_entropy, dice = mask_losses(answered, target, is_real, balance)  # [A, 1] each
        is_asking = known[rows, None]
        total = total + ((cross_entropy + dice) * is_asking).sum() / is_asking.sum().clamp(min=1)
    return total / len(asked)


def mask_losses(
    logits: Tensor,  # [P, S, R]
    target: Tensor,  # [P, S, 1]
    is_real: Tensor,  # [P, S, 1] bool
    balance: float,
) -> tuple[Tensor, Tensor]:  # [P, R], [P, R]
    """Cross-entropy and Dice loss of each mask over as many superpoints as are real."""
    sizes = is_real.sum(dim=1).clamp(min=1)
    inside = target.sum(dim=1, keepdim=True).clamp(min=1)
    more = ((sizes[..., None] - inside) / inside).clamp(0, LARGEST_WEIGHT)
    error = F.binary_cross_entropy_with_logits(
        logits, target.expand_as(logits), 1 + balance * more * target, reduction="none"
    )
    cross_entropy = (error * is_real).sum(dim=1) / sizes
    return cross_entropy, dice_loss(logits.sigmoid() * is_real, target)


def dice_loss(
    probabilities: Tensor,  # [P, S, R]
    target: Tensor,  # [P, S, 1]
) -> Tensor:  # [P, R]
    """One minus the Dice coefficient, of which 1 more is counted above and below."""
    both = 2 * (probabilities * target).sum(dim=1)
    return 1 - (both + 1) / (probabilities.sum(dim=1) + target.sum(dim=1) + 1)


def score_loss(
    scores: Tensor,  # [P, R]
    ious: Tensor,  # [P, R]
) -> Tensor:  # [R]
    """The mean squared error of the scores of good masks."""
    is_good = ious > GOOD_ENOUGH
    error = (scores - ious).square().masked_fill(~is_good, 0)
    return error.sum(dim=0) / is_good.sum(dim=0).clamp(min=1)


def overlap(
    masks: Tensor,  # [P, S, R] bool
    target: Tensor,  # [P, S, 1] bool
) -> Tensor:  # [P, R]
    """Intersection over union, 0 where both are empty."""
    both, either = (masks & target).sum(dim=1), (masks | target).sum(dim=1)
    return both / either.clamp(min=1)


def _unshortened(values: Tensor) -> Tensor:
    """In float32 at least: autocast leaves halves, which are too coarse to add up."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
