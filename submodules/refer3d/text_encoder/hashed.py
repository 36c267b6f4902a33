"""Word features without a language model, for tests and dry runs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from refer3d.runs.errors import InputError
from refer3d.text_encoder.features import TextFeatures, check_text


class HashTextEncoder:
    """Encoder with a fixed random vector for each word, so only equal words are similar."""

    def __init__(self, dim: int = 64, is_framed: bool = False) -> None:
        """Sets the width; ``is_framed`` adds a begin and an end token to each sentence."""
        self.dim = dim
        self.is_framed = is_framed
        self.name = "hash"
        self.identity = f"hash-{dim}-framed" if is_framed else f"hash-{dim}"

    def __call__(self, sentences: Sequence[str | Sequence[str]]) -> TextFeatures:
        """Encodes sentences; see :class:`TextEncoder`."""
        split = [
            re.findall(r"\w+", sentence) if isinstance(sentence, str) else sentence
            for sentence in sentences
        ]
        for sentence, words in zip(sentences, split, strict=True):
            check_text(sentence)
            if not words:
                raise InputError(f"sentence {sentence!r} has no words")
        if self.is_framed:
            split = [["<s>", *words, "</s>"] for words in split]
        features = [torch.stack([self.word(word) for word in words]) for words in split]
        means = [normalize(sentence.mean(dim=0), dim=0) for sentence in features]
        return TextFeatures.collate(features, means)

    def word(self, word: str) -> Tensor:  # [T]
        """Returns the word's vector; case does not matter."""
        digest = hashlib.sha256(word.lower().encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
        return torch.randn(self.dim, generator=generator)
