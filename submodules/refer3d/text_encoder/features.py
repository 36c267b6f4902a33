"""What a language model tells about sentences."""

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

    The mask belongs to the features, so that nobody can forget the padding.
    """

    words: Tensor
    """[B, L, T], one feature per word (or word piece), zero where ``mask`` is False."""
    mask: Tensor
    """[B, L] bool, True at words, False at padding. Special tokens are not among the words, unless
    the encoder frames them: then a begin token is before the first word, an end token behind the
    last, and both count."""
    embeddings: Tensor
    """[B, T], the language model's own embedding of each sentence, of length 1: its mean over all
    tokens, special ones included, which is what MiniLM and its like are trained to compare."""

    def sentence(self) -> Tensor:  # [B, T]
        """The mean over words; padding does not count."""
        count = self.mask.sum(dim=1, keepdim=True).clamp(min=1)
        return self.words.sum(dim=1) / count

    def __len__(self) -> int:
        """How many sentences there are."""
        return len(self.words)

    def __getitem__(self, index: slice | Sequence[int]) -> TextFeatures:
        """Some of the sentences, padded to the longest of them."""
        if not isinstance(index, slice) and any(isinstance(row, bool) for row in index):
            raise TypeError("sentences are chosen by their numbers, not by a mask")
        every = range(len(self))
        chosen = every[index] if isinstance(index, slice) else [every[row] for row in index]
        length = max((self.lengths[row] for row in chosen), default=0)
        rows = to_device(torch.tensor(chosen, dtype=torch.int64), self.words.device)
        parts = (self.words[:, :length], self.mask[:, :length], self.embeddings)
        return TextFeatures(*(part.index_select(0, rows) for part in parts))

    @functools.cached_property
    def lengths(self) -> list[int]:
        """How many words each sentence has; a GPU is asked once."""
        return self.mask.sum(dim=1).tolist()

    def to(self, device: torch.device | str) -> TextFeatures:
        """The same features on another device."""
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
    """What the models need from a language model."""

    name: str
    """What a result records."""
    identity: str
    """Differs where any feature could: the name with a hash of the weights."""
    dim: int
    """T, the width of the features."""

    def __call__(self, sentences: Sequence[str | Sequence[str]]) -> TextFeatures:
        """Encodes at least one sentence.

        Text gets one feature per word piece. A list of words gets one per word, of its first piece
        alone, so that a word's index is its feature's, or one less where the encoder frames.
        """
        ...


def is_same_text(identity: str, other: str) -> bool:
    """Whether two encoders' identities mean the same features; older ones begin with a name."""
    return identity.rpartition("@")[2] == other.rpartition("@")[2]


def check_text(sentence: str | Sequence[str]) -> None:
    """Refuses what no text file can hold.

    Raises:
        InputError: A half of a character stands alone, as JSON's escapes allow.
    """
    try:
        "".join(sentence).encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"sentence {sentence!a}: holds half a character; correct the text"
        ) from error
