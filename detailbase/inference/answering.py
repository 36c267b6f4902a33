"""Point masks of phrases from a batch: the one place where predictions become masks."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from detailbase.data.batches import Batch
from detailbase.descriptions.sentences import Sentences
from detailbase.model.network import Predictions

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
