"""Masks of phrases from a network's predictions, and their scores."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from detailbase.config import DataConfig
from detailbase.data.batches import Batch, Batches
from detailbase.data.wording import head, named_objects
from detailbase.descriptions.references import Reference
from detailbase.descriptions.sentences import Sentences
from detailbase.inference.metrics import METRICS, Masks, PhraseScores
from detailbase.model.network import DetailBase, Predictions
from detailbase.scans.clouds import NONE
from refer3d.runs.errors import InputError
from refer3d.runs.ranks import rank, world

log = logging.getLogger(__name__)

THRESHOLD = 0.5
"""Least probability of a point inside a mask."""
START = torch.tensor([1.0, 0.0], dtype=torch.float64)
"""Calibration that leaves scores as they are: a factor and a summand of their log-odds."""
RIDGE, NEWTON_STEPS = 1.0, 20
"""Weight of staying near ``START``, in phrases, and steps of the fit."""


def answer(
    network: DetailBase, turned: Sequence[Batch], sentences: Sentences
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields for each phrase its mask on the points [N bool] of its scan and the mask's score [].

    A phrase whose word the encoder did not read gets an empty mask.

    Args:
        network: The network.
        turned: A batch, or the same in several turns, whose predictions are averaged.
        sentences: Its text.
    """
    batch = turned[0]
    predictions = average([network(**one.inputs(sentences)) for one in turned])
    for phrase, sentence in zip(batch.phrases, batch.sentence_of_phrase, strict=True):
        scene = batch.scene_of_sentence[sentence]
        superpoints = batch.scan_superpoints[scene]
        if not sentences.reaches(batch.references[sentence].words, phrase.query):
            yield torch.zeros_like(superpoints, dtype=torch.bool), batch.features.new_zeros(())
            continue
        logits = predictions.masks[sentence][-1, phrase.query].float()
        score = predictions.scores[-1, sentence, phrase.query].float()
        objects, sizes, choices = predictions.objects, predictions.sizes, predictions.choices
        if objects is None or sizes is None or choices is None:
            mask = logits.sigmoid() >= THRESHOLD
        else:
            own = slice(*batch.superpoint_starts[scene : scene + 2])
            choice = choices[-1, sentence, phrase.query].float()
            mask, probability = choose(logits, objects[scene], sizes[own], choice)
            a, b = network.decoder.calibration.tolist()
            score = (a * (score * probability).clamp(1e-4, 1 - 1e-4).logit() + b).sigmoid()
        yield mask[superpoints], score


def angles(turns: int) -> list[float]:
    """Spreads turns evenly over the circle, in radians; the first is none."""
    return [2 * math.pi * index / turns for index in range(turns)]


def average(predictions: Sequence[Predictions]) -> Predictions:
    """Averages masks, scores and choices; the objects are those of the first."""
    first, *others = predictions
    if not others:
        return first
    choices = [one.choices for one in predictions if one.choices is not None]
    return dataclasses.replace(
        first,
        masks=tuple(
            torch.stack(masks).mean(dim=0)
            for masks in zip(*(one.masks for one in predictions), strict=True)
        ),
        scores=torch.stack([one.scores for one in predictions]).mean(dim=0),
        choices=torch.stack(choices).mean(dim=0) if choices else None,
    )


@torch.no_grad()
def calibrate(network: DetailBase, rows: Sequence[PhraseScores] = ()) -> None:
    """Fits the scores of masks to the IoUs of some phrases, by Platt's two numbers.

    The numbers are a buffer of the network, so they are saved with its weights. Without rows, they
    are reset; the scores of rows must be those of such a network.
    """
    if network.decoder.out_choice is None:
        return
    found = [(row.confidence, row.scores["mIoU"]) for row in rows if row.confidence > 0]
    scores, ious = torch.tensor(found, dtype=torch.float64).view(-1, 2).T
    inputs = torch.stack([scores.clamp(1e-4, 1 - 1e-4).logit(), torch.ones_like(scores)], dim=1)
    numbers = START.clone()
    for _ in range(NEWTON_STEPS):  # of the cross-entropy, which is convex
        expected = (inputs @ numbers).sigmoid()
        slope = inputs.T @ (expected - ious) + RIDGE * (numbers - START)
        curve = inputs.T @ (inputs * (expected * (1 - expected))[:, None])
        numbers = numbers - torch.linalg.solve(curve + RIDGE * torch.eye(2).double(), slope)
    network.decoder.calibration.copy_(numbers)


def choose(
    logits: Tensor,  # [S]
    objects: Tensor,  # [S]
    sizes: Tensor,  # [S]
    choice: Tensor,  # [2]
) -> tuple[Tensor, Tensor]:  # [S] bool, []
    """Chooses whole objects for a phrase: none, the best, or several.

    Args:
        logits: The phrase's mask.
        objects: Each superpoint's object.
        sizes: Each superpoint's number of points.
        choice: Logits of none of the objects and of several.

    Returns:
        mask: True at the superpoints of the chosen objects.
        probability: That of the chosen objects' being meant.
    """
    sums = logits.new_zeros(int(objects.max()) + 1, 2)
    sums.index_add_(0, objects, torch.stack([logits * sizes, sizes], dim=1))
    values = sums[:, 0] / sums[:, 1]  # [O]
    probabilities = torch.cat([choice[:1], values]).softmax(dim=0)
    chosen = torch.zeros_like(values, dtype=torch.bool)
    if probabilities[0] < THRESHOLD:
        chosen[values.argmax()] = True
        if choice[1] >= 0:
            chosen |= values >= 0
    return chosen[objects], probabilities[1:][chosen].sum()


@torch.no_grad()
def score(
    network: DetailBase,
    references: Sequence[Reference],
    scans: Path,
    sentences: Sentences,
    options: DataConfig,
    device: torch.device,
) -> Iterator[PhraseScores]:
    """Yields each phrase's scores on the points of its scan; one of several processes, its share.

    Raises:
        InputError: A scan is broken, or was prepared without its objects.
    """
    network.eval()
    options = dataclasses.replace(options, max_sentences=options.test_sentences)
    absent = 0
    named = named_objects(references)
    share = (rank(), world())
    all_turns = [
        Batches(references, scans, options, turn=turn, share=share)
        for turn in angles(options.turns)
    ]
    firsts = all_turns[0].firsts
    for first, *loaded in zip(firsts, *(one.loader() for one in all_turns), strict=True):
        turned = [one.to(device) for one in loaded]
        batch = turned[0]
        for index, (mask, confidence) in enumerate(answer(network, turned, sentences)):
            sentence, phrase = batch.sentence_of_phrase[index], batch.phrases[index]
            reference, scene = batch.references[sentence], batch.scene_of_sentence[sentence]
            truth = batch.point_targets[index]
            if phrase.object_ids and not truth.any():
                absent += 1
                if (batch.scan_instances[scene] == NONE).all():
                    raise InputError(
                        f"{scans}: {reference.scene_id} was prepared without objects, so nothing "
                        "can be scored there; prepare it again with --force once its segs.json "
                        "and aggregation.json are there"
                    )
                scores = dict.fromkeys(METRICS, 0.0)
            else:
                instances = batch.scan_instances[scene]
                alike = named.get((reference.scene_id, head(reference, phrase)), ())
                masks = Masks(mask, truth, batch.scan_superpoints[scene], instances, tuple(alike))
                scores = {name: metric(masks) for name, metric in METRICS.items()}
            yield PhraseScores(
                reference,
                phrase.key,
                first + sentence,
                scores,
                float(confidence) * mask.any().item(),
            )
    if absent:
        log.warning(
            "%d phrases name objects that have no points in their scans: they count as missed, "
            "as in the published evaluation",
            absent,
        )
