"""Losses: masks and scores of every round, classes and pairs of superpoints."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from detailbase.config import TrainConfig
from detailbase.data.batches import Batch
from detailbase.model.grouping import PairLogits
from detailbase.model.network import Predictions
from detailbase.scans.clouds import NONE
from refer3d.runs.device import full_precision, to_device
from refer3d.runs.ranks import mean_of

SCORE_WEIGHT = 0.5
LARGEST_WEIGHT = 20.0
"""Largest weight of a superpoint inside in the cross-entropy; one outside weighs 1."""
LEAST_IOU = 0.5
"""Only masks of a higher IoU train the score; otherwise it would learn to predict 0."""


class Losses(NamedTuple):
    """The loss, and the terms of each of R rounds, each a mean over phrases."""

    total: Tensor
    """[], the weighted sum of all terms over all rounds."""
    cross_entropy: Tensor
    """[R], over each phrase's superpoints."""
    dice: Tensor
    """[R]."""
    score: Tensor
    """[R], squared error of the predicted IoU; 0 where no mask is good enough."""


def total_loss(predictions: Predictions, batch: Batch, options: TrainConfig) -> Losses:
    """Adds the auxiliary losses of the network's parts to the loss of masks and scores."""
    phrases = (batch.sentence_of_phrase, batch.query_of_phrase, batch.targets)
    losses = mask_loss(predictions, *phrases, options.pos_weight)
    total = losses.total
    if predictions.classes is not None:
        total = total + options.class_weight * class_loss(predictions.classes, batch.classes)
    if predictions.pairs is not None:
        pairs = pair_loss(predictions.pairs, batch.objects, options.pos_weight)
        total = total + options.object_weight * pairs
    if predictions.choices is not None and predictions.sizes is not None:
        choice = choice_loss(predictions.choices, predictions, batch)
        total = total + options.choice_weight * choice
    return losses._replace(total=total)


def mask_loss(
    predictions: Predictions,
    sentence_of_phrase: Sequence[int],
    query_of_phrase: Sequence[int],
    targets: Sequence[Tensor],
    pos_weight: float = 0.0,
) -> Losses:
    """Compares the masks of P phrases with those of their objects.

    Args:
        predictions: Output of the network.
        sentence_of_phrase: Each phrase's sentence.
        query_of_phrase: Each phrase's query: its word's index + 1, or 0.
        targets: For each phrase [S], 1 at superpoints of its objects, else 0.
        pos_weight: Balance of the cross-entropy: 0, as published, weighs all superpoints alike; 1
            weighs the few inside like the many outside, up to ``LARGEST_WEIGHT``.
    """
    sentences, queries = list(map(int, sentence_of_phrase)), list(map(int, query_of_phrase))
    picked = phrase_logits(predictions.masks, sentences, queries)
    logits = full_precision(picked).permute(1, 2, 0)  # [P, S, R]
    target = pad_sequence(list(targets), batch_first=True).to(logits)[..., None]
    sizes = to_device(torch.tensor([len(one) for one in targets]), logits.device)[:, None]
    is_real = (torch.arange(logits.shape[1], device=logits.device) < sizes)[..., None]
    of_sentence, of_query = to_device(torch.tensor([sentences, queries]), logits.device)
    scores = full_precision(predictions.scores[:, of_sentence, of_query].T)  # [P, R]

    terms = mask_terms(logits, target, is_real, pos_weight)  # [P, R] each
    cross_entropy, dice = (mean_of(x.sum(dim=0), len(x)) for x in terms)
    masks, inside = (logits >= 0) & is_real, target > 0
    ious = (masks & inside).sum(dim=1) / (masks | inside).sum(dim=1).clamp(min=1)  # [P, R]
    is_good = ious > LEAST_IOU
    error = (scores - ious).square().masked_fill(~is_good, 0)
    score = mean_of(error.sum(dim=0), is_good.sum(dim=0))
    total = (cross_entropy + dice + SCORE_WEIGHT * score).sum()
    return Losses(total, cross_entropy, dice, score)


def phrase_logits(
    masks: Sequence[Tensor],  # for each sentence [R, L, S]
    sentences: Sequence[int],
    queries: Sequence[int],
) -> Tensor:  # [R, P, S]
    """Picks the masks of P phrases and pads them to the most superpoints.

    A sentence is indexed once for all its phrases: the gradient of an index is as large as all
    masks of the sentence.
    """
    rows_of: dict[int, list[int]] = {}
    for row, sentence in enumerate(sentences):
        rows_of.setdefault(sentence, []).append(row)
    largest, picked = max(masks[sentence].shape[2] for sentence in rows_of), []
    for sentence, rows in rows_of.items():
        asked = to_device(torch.tensor([queries[row] for row in rows]), masks[sentence].device)
        own = masks[sentence].index_select(1, asked)
        picked.append(F.pad(own, (0, largest - own.shape[2])))
    logits, order = torch.cat(picked, dim=1), list(itertools.chain(*rows_of.values()))
    if order == sorted(order):
        return logits
    return logits.index_select(1, to_device(torch.tensor(order).argsort(), logits.device))


def choice_loss(
    choices: Tensor,  # [R, B, L, 2]
    predictions: Predictions,
    batch: Batch,
) -> Tensor:  # []
    """Computes the loss of choosing the phrases' objects, a mean over phrases, summed over rounds.

    An object's logit is the mean of the mask's over its points. Softmax over the scene's objects
    and none of them gives the probability of the right ones; a second logit tells several from one.
    Superpoints of no object count as one object together.
    """
    assert predictions.sizes is not None
    total = choices.new_zeros((), dtype=torch.float32)
    starts, targets = batch.superpoint_starts, batch.targets
    scene_of_phrase = [batch.scene_of_sentence[row] for row in batch.sentence_of_phrase]
    queries, device = batch.query_of_phrase, choices.device
    for scene in sorted(set(scene_of_phrase)):
        phrases = [row for row, other in enumerate(scene_of_phrase) if other == scene]
        sentences = [batch.sentence_of_phrase[row] for row in phrases]
        asked = [queries[row] for row in phrases]
        logits = phrase_logits(predictions.masks, sentences, asked).transpose(0, 1)  # [P, R, S]
        own = slice(starts[scene], starts[scene + 1])
        objects = batch.objects[own].unique(return_inverse=True)[1]  # [S]
        shares = F.one_hot(objects).float() * predictions.sizes[own, None]  # [S, O]
        shares = shares / shares.sum(dim=0)
        target = torch.stack([targets[row] for row in phrases]).to(shares) @ shares > 0.5  # [P, O]
        of_sentence, of_query = to_device(torch.tensor([sentences, asked]), device)
        none, several = full_precision(choices[:, of_sentence, of_query]).unbind(dim=-1)  # [R, P]
        values = torch.cat(
            [none.T[..., None], full_precision(logits) @ shares], dim=-1
        )  # [P, R, 1 + O]
        is_none = ~target.any(dim=1, keepdim=True)
        right = torch.cat([is_none, target], dim=1)[:, None]
        chosen = values.masked_fill(~right, -torch.inf).logsumexp(dim=-1)
        total = total + (values.logsumexp(dim=-1) - chosen).sum()
        number = (target.sum(dim=1) > 1).float().expand_as(several)
        error = F.binary_cross_entropy_with_logits(several, number, reduction="none")
        total = total + (error * ~is_none[:, 0]).sum()
    return mean_of(total, len(scene_of_phrase))


def class_loss(
    logits: Tensor,  # [S, classes]
    classes: Tensor,  # [S], ``NONE`` where a superpoint has none
) -> Tensor:  # []
    """Computes the cross-entropy of superpoints' classes; 0 where none is labelled."""
    is_labelled = classes >= 0
    logits = full_precision(logits).where(is_labelled[:, None], 0)
    error = F.cross_entropy(logits, classes, reduction="sum", ignore_index=NONE)
    return mean_of(error, is_labelled.sum())


def pair_loss(
    pairs: Sequence[PairLogits],
    objects: Tensor,  # [S of all scenes], negative where a superpoint has none
    pos_weight: float = 0.0,
) -> Tensor:  # []
    """Compares which superpoints belong together with the objects, each row like a phrase's mask.

    Returns the mean over scenes; superpoints of no object are ignored.
    """
    total = objects.new_zeros((), dtype=torch.float32)
    split = objects.split([scene.logits.shape[1] for scene in pairs])
    for (rows, logits), owner in zip(pairs, split, strict=True):
        has_object = owner >= 0
        target = ((owner[rows, None] == owner) & has_object)[..., None].float()  # [A, S, 1]
        is_real = has_object[None, :, None].expand_as(target)
        values = full_precision(logits)[..., None]
        cross_entropy, dice = mask_terms(values, target, is_real, pos_weight)  # [A, 1] each
        is_row = has_object[rows, None]
        total = total + ((cross_entropy + dice) * is_row).sum() / is_row.sum().clamp(min=1)
    return mean_of(total, len(pairs))


def mask_terms(
    logits: Tensor,  # [P, S, R]
    target: Tensor,  # [P, S, 1]
    is_real: Tensor,  # [P, S, 1] bool
    pos_weight: float,
) -> tuple[Tensor, Tensor]:  # [P, R], [P, R]
    """Computes cross-entropy and Dice loss of each mask over the superpoints that are real."""
    sizes = is_real.sum(dim=1).clamp(min=1)
    inside = target.sum(dim=1, keepdim=True).clamp(min=1)
    more = ((sizes[..., None] - inside) / inside).clamp(0, LARGEST_WEIGHT)
    error = F.binary_cross_entropy_with_logits(
        logits, target.expand_as(logits), 1 + pos_weight * more * target, reduction="none"
    )
    cross_entropy = (error * is_real).sum(dim=1) / sizes
    probabilities = logits.sigmoid() * is_real
    overlap = 2 * (probabilities * target).sum(dim=1)
    # 1 is added to numerator and denominator of the Dice coefficient, as published.
    dice = 1 - (overlap + 1) / (probabilities.sum(dim=1) + target.sum(dim=1) + 1)
    return cross_entropy, dice
