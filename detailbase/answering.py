"""From a batch to the points that each phrase means: the one place where masks are made."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detailbase.config import Config
from detailbase.data.dataset import Batch
from detailbase.model.network import DetailBase, Predictions
from detailbase.model.weights import load_weights
from detailbase.sentences import Sentences

THRESHOLD = 0.5
"""A point is the phrase's from this probability."""


def build(config: Config, text_dim: int) -> DetailBase:
    """The network that the options describe."""
    return DetailBase(text_dim, **dataclasses.asdict(config.model))


def load(config: Config, text_dim: int, device: torch.device) -> DetailBase:
    """The network with the weights of ``config.checkpoint``.

    Raises:
        InputError: The checkpoint cannot be read or does not fit.
    """
    model = build(config, text_dim)
    load_weights(model, Path(config.checkpoint))
    return model.to(device).eval()


def inputs(batch: Batch, sentences: Sentences) -> tuple[Any, ...]:
    """What the network is called with."""
    words, mask = sentences.of(batch.references)
    return (
        *(batch.features, batch.voxels, batch.point_to_voxel),
        *(batch.superpoints, batch.superpoint_starts, words, mask, batch.scene_of_sentence),
    )


def answer(
    model: DetailBase, batch: Batch, sentences: Sentences
) -> Iterator[tuple[Tensor, Tensor]]:
    """For each phrase: the probability of each point [N] of its scan, and the mask's score [].

    A phrase whose word the encoder did not read gets nothing.
    """
    predictions: Predictions = model(*inputs(batch, sentences))
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
