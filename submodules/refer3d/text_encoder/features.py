"""Features of sentences, and the interface of their encoders."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from refer3d.runs.device import to_device
from refer3d.runs.errors import InputError


@dataclass(frozen=True)
class TextFeatures:
    """Encoded sentences, padded to the longest one.

    The mask is part of the features, so that no caller can forget the padding.
    """

    words: Tensor
    """[B, L, T], one feature per word (or word piece), zero where ``mask`` is False."""
    mask: Tensor
    """[B, L] bool, True at words, False at padding. Special tokens are words only if the encoder is
    framed: then a begin token precedes the first word and an end token follows the last."""
    embeddings: Tensor
    """[B, T] embedding of each sentence, of unit length: the mean over all tokens, special ones
    included, as sentence encoders such as MiniLM are trained."""

    def sentence(self) -> Tensor:  # [B, T]
        """Averages over words; padding does not count."""
        count = self.mask.sum(dim=1, keepdim=True).clamp(min=1)
        return self.words.sum(dim=1) / count

    def __len__(self) -> int:
        """B, the number of sentences."""
        return len(self.words)

    def __getitem__(self, index: slice | Sequence[int]) -> TextFeatures:
        """Selects sentences, padded to the longest of them."""
        if not isinstance(index, slice) and any(isinstance(row, bool) for row in index):
            raise TypeError("sentences are chosen by their numbers, not by a mask")
        every = range(len(self))
        rows = every[index] if isinstance(index, slice) else [every[row] for row in index]
        length = max((self.lengths[row] for row in rows), default=0)
        selected = to_device(torch.tensor(rows, dtype=torch.int64), self.words.device)
        parts = (self.words[:, :length], self.mask[:, :length], self.embeddings)
        return TextFeatures(*(part.index_select(0, selected) for part in parts))

    @functools.cached_property
    def lengths(self) -> list[int]:
        """Number of words of each sentence; cached, since a GPU synchronizes for it."""
        return self.mask.sum(dim=1).tolist()

    def to(self, device: torch.device | str) -> TextFeatures:
        """Copies the features to another device."""
        parts = (self.words, self.mask, self.embeddings)
        return TextFeatures(*(to_device(part, device) for part in parts))

    @classmethod
    def collate(cls, words: Sequence[Tensor], embeddings: Sequence[Tensor]) -> TextFeatures:
        """Pads sentences of [L, T] words and [T] embeddings to one batch."""
        lengths = torch.tensor([len(sentence) for sentence in words])
        return cls(
            words=pad_sequence(list(words), batch_first=True),
            mask=torch.arange(int(lengths.max())) < lengths[:, None],
            embeddings=torch.stack(list(embeddings)),
        )


class TextEncoder(Protocol):
    """Interface of language models."""

    @property
    def name(self) -> str:
        """Name in results."""
        ...

    @property
    def identity(self) -> str:
        """Hash of the weights: encoders of the same identity give the same features."""
        ...

    @property
    def dim(self) -> int:
        """T, the width of the features."""
        ...

    def __call__(self, sentences: Sequence[str | Sequence[str]]) -> TextFeatures:
        """Encodes at least one sentence.

        Text gets one feature per word piece. A list of words gets one per word, that of its first
        piece, so that word and feature have the same index; in a framed encoder the feature's is
        one more.
        """
        ...


def is_same_text(identity: str, other: str) -> bool:
    """Compares two encoders' identities; those of older files begin with a name."""
    return identity.rpartition("@")[2] == other.rpartition("@")[2]


def check_text(sentence: str | Sequence[str]) -> None:
    """Refuses text that UTF-8 cannot encode.

    Raises:
        InputError: It has a lone surrogate, as JSON's escapes allow.
    """
    try:
        "".join(sentence).encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"sentence {sentence!a}: holds half a character; correct the text"
        ) from error
