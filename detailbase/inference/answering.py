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
    """Yields for each phrase the probability of each point [N] of its scan and the mask's score [].

    A phrase whose word the encoder did not read gets zeros.
    """
    predictions: Predictions = network(**batch.inputs(sentences))
    for phrase, sentence in zip(batch.phrases, batch.sentence_of_phrase, strict=True):
        superpoints = batch.scan_superpoints[batch.scene_of_sentence[sentence]]
        if sentences.reaches(batch.references[sentence].words, phrase.query):
            logits = predictions.masks[sentence][-1, phrase.query].float()
            yield logits.sigmoid()[superpoints], predictions.scores[-1, sentence, phrase.query]
        else:
            yield batch.features.new_zeros(len(superpoints)), batch.features.new_zeros(())


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
        for index, (probability, _) in enumerate(answer(network, batch, sentences)):
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
                masks = Masks(probability >= THRESHOLD, truth, batch.scan_superpoints[scene])
                scores = {name: metric(masks) for name, metric in METRICS.items()}
            yield PhraseScores(reference, phrase.key, first + sentence, scores)
        first += len(batch.references)
    if absent:
        log.warning(
            "%d phrases name objects that have no points in their scans: they count as missed, "
            "as in the published evaluation",
            absent,
        )
