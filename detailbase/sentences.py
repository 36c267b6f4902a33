"""The frozen language model's features of all descriptions, encoded once."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detailbase.config import TextConfig
from detailbase.data.references import Reference
from text_encoder import TextFeatures, make_encoder

log = logging.getLogger(__name__)

Words = tuple[str, ...]


@dataclass(frozen=True)
class Sentences:
    """What is known of each description's words."""

    encoder: str
    """The language model's name."""
    dim: int
    """T."""
    features: dict[Words, tuple[Tensor, Tensor]]
    """[L, T] of the words between their begin and end tokens, and the sentence's embedding [T]."""
    device: torch.device

    @classmethod
    def encode(
        cls, options: TextConfig, references: Iterable[Reference], device: torch.device
    ) -> Sentences:
        """Encodes every distinct sentence; every word is its first sub-token.

        What the encoder cannot take of a long sentence is left out, with a warning.

        Raises:
            InputError: There is no such encoder.
        """
        encoder = make_encoder(options.encoder, options.cache, device, is_framed=True)
        distinct = list(dict.fromkeys(reference.words for reference in references))
        encoded = encoder(distinct)
        features = {
            words: (encoded.words[row][encoded.mask[row]], encoded.embeddings[row])
            for row, words in enumerate(distinct)
        }
        return cls(encoder.name, encoder.dim, features, device)

    def of(self, references: Sequence[Reference]) -> tuple[Tensor, Tensor]:
        """Features [B, L, T] and mask [B, L] of some descriptions, padded to the longest."""
        found = [self.features[reference.words] for reference in references]
        together = TextFeatures.collate(*zip(*found, strict=True)).to(self.device)
        return together.words, together.mask

    def reaches(self, words: Words, query: int) -> bool:
        """Whether the encoder has read as far as the word that a query belongs to."""
        return query < len(self.features[words][0]) - 1
