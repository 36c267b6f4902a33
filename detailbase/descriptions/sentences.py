"""Word features of the descriptions from the frozen language model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from detailbase.config import TextConfig
from detailbase.descriptions.references import Reference
from refer3d.runs.progress import Progress
from refer3d.text_encoder import TextEncoder, make_encoder

Words = tuple[str, ...]

AT_ONCE = 256
"""Sentences that are encoded between two updates of the progress bar."""


def word_encoder(options: TextConfig, device: torch.device) -> TextEncoder:
    """Makes the language model whose words, between its begin and end tokens, the network reads.

    Raises:
        InputError: The encoder does not exist.
    """
    return make_encoder(options.encoder, options.cache, device, is_framed=True)


@dataclass(frozen=True)
class Sentences:
    """Descriptions, each encoded once; the features lie in the encoder's cache on the disk.

    DetailRefer's would take 4.5 GB of memory; reading a sentence takes 0.3 ms.
    """

    encoder: TextEncoder
    lengths: dict[Words, int]
    """Number of words that the encoder read of each sentence."""
    device: torch.device

    @classmethod
    def encode(
        cls, encoder: TextEncoder, references: Iterable[Reference], device: torch.device
    ) -> Sentences:
        """Encodes every distinct sentence; a word's feature is that of its first sub-token.

        The encoder cuts sentences that are too long, with a warning.
        """
        distinct = list(dict.fromkeys(reference.words for reference in references))
        lengths: dict[Words, int] = {}
        is_long = len(distinct) > AT_ONCE
        with Progress("sentences", len(distinct)) if is_long else nullcontext() as progress:
            for start in range(0, len(distinct), AT_ONCE):
                some = distinct[start : start + AT_ONCE]
                read = encoder(some).mask.sum(dim=1) - 2  # without begin and end
                lengths.update(zip(some, read.tolist(), strict=True))
                if progress:
                    progress.advance(len(some))
        return cls(encoder, lengths, device)

    def of(self, references: Sequence[Reference]) -> tuple[Tensor, Tensor]:
        """Returns features [B, L, T] and mask [B, L] of some descriptions, padded to the longest.

        A begin token stands before the words, an end token behind them.
        """
        encoded = self.encoder([reference.words for reference in references]).to(self.device)
        return encoded.words, encoded.mask

    def reaches(self, words: Words, query: int) -> bool:
        """Tells whether the encoder has read the word that a query belongs to."""
        return query <= self.lengths[words]

    def answerable(self, references: Iterable[Reference]) -> list[Reference]:
        """Keeps the phrases whose words the encoder has read, and the descriptions with any."""
        answerable = []
        for reference in references:
            phrases = [p for p in reference.phrases if self.reaches(reference.words, p.query)]
            if phrases:
                answerable.append(dataclasses.replace(reference, phrases=tuple(phrases)))
        return answerable
