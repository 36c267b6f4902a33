"""From a batch to the points that each phrase means: the one place where masks are made."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from detailbase.data.batches import Batch
from detailbase.descriptions.sentences import Sentences
from detailbase.model.network import DetailBase, Predictions

THRESHOLD = 0.5
"""A point is the phrase's from this probability."""


def inputs(batch: Batch, sentences: Sentences) -> tuple[Any, ...]:
    """What the network is called with."""
    words, mask = sentences.of(batch.references)
    return (
        *(batch.features, batch.voxels, batch.point_to_voxel),
        *(batch.superpoints, batch.superpoint_starts, words, mask, batch.scene_of_sentence),
    )


def answer(
    network: DetailBase, batch: Batch, sentences: Sentences
) -> Iterator[tuple[Tensor, Tensor]]:
    """For each phrase: the probability of each point [N] of its scan, and the mask's score [].

    A phrase whose word the encoder did not read gets nothing.
    """
    predictions: Predictions = network(*inputs(batch, sentences))
    local = [
        batch.superpoints[a:b] - start
        for (a, b), start in zip(
            itertools.pairwise(batch.point_starts), batch.superpoint_starts, strict=False
        )
    ]
    for phrase, sentence in zip(batch.phrases, batch.sentence_of_phrase, strict=True):
        superpoints = local[batch.scene_of_sentence[sentence]]
        if sentences.reaches(batch.references[sentence].words, phrase.query):
            logits = predictions.masks[sentence][-1, phrase.query].float()
            yield logits.sigmoid()[superpoints], predictions.scores[-1, sentence, phrase.query]
        else:
            nothing = batch.features.new_zeros(len(superpoints))
            yield nothing, nothing[:0].sum()
