"""Masks of phrases from a network's predictions, and their scores."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from detailbase.config import DataConfig
from detailbase.data.batches import Batch, Batches
from detailbase.descriptions.references import Reference
from detailbase.descriptions.sentences import Sentences
from detailbase.inference.metrics import METRICS, Masks, PhraseScores
from detailbase.model.network import Predictions
from detailbase.scans.clouds import NONE
from refer3d.runs.errors import InputError

log = logging.getLogger(__name__)

THRESHOLD = 0.5
"""Least probability of a point inside a mask."""


def answer(
    network: nn.Module, batch: Batch, sentences: Sentences
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields for each phrase its mask on the points [N bool] of its scan and the mask's score [].

    A phrase whose word the encoder did not read gets an empty mask.
    """
    predictions: Predictions = network(**batch.inputs(sentences))
    for phrase, sentence in zip(batch.phrases, batch.sentence_of_phrase, strict=True):
        scene = batch.scene_of_sentence[sentence]
        superpoints = batch.scan_superpoints[scene]
        if not sentences.reaches(batch.references[sentence].words, phrase.query):
            yield torch.zeros_like(superpoints, dtype=torch.bool), batch.features.new_zeros(())
            continue
        logits = predictions.masks[sentence][-1, phrase.query].float()
        score = predictions.scores[-1, sentence, phrase.query].float()
        if predictions.objects is None or predictions.choices is None:
            mask = logits.sigmoid() >= THRESHOLD
        else:
            own = slice(*batch.superpoint_starts[scene : scene + 2])
            mask, probability = choose(
                logits,
                predictions.objects[scene],
                predictions.sizes[own],
                predictions.choices[-1, sentence, phrase.query].float(),
            )
            score = score * probability
        yield mask[superpoints], score


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
    network: nn.Module,
    references: Sequence[Reference],
    scans: Path,
    sentences: Sentences,
    options: DataConfig,
    device: torch.device,
) -> Iterator[PhraseScores]:
    """Yields each phrase's scores on the points of its scan.

    Raises:
        InputError: A scan is broken, or was prepared without its objects.
    """
    network.eval()
    options = dataclasses.replace(options, max_sentences=options.test_sentences)
    first = absent = 0
    for loaded in Batches(references, scans, options).loader():
        batch = loaded.to(device)
        for index, (mask, _) in enumerate(answer(network, batch, sentences)):
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
                masks = Masks(mask, truth, batch.scan_superpoints[scene])
                scores = {name: metric(masks) for name, metric in METRICS.items()}
            yield PhraseScores(reference, phrase.key, first + sentence, scores)
        first += len(batch.references)
    if absent:
        log.warning(
            "%d phrases name objects that have no points in their scans: they count as missed, "
            "as in the published evaluation",
            absent,
        )
