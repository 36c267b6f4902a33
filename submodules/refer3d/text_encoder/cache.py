"""Encoded sentences, kept on disk."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from refer3d.runs.errors import InputError
from refer3d.runs.states import load_state, save_state
from refer3d.text_encoder.features import TextEncoder, TextFeatures

log = logging.getLogger(__name__)

FORMAT = 1


class CachedTextEncoder:
    """An encoder that asks a slower one only for sentences that it has not seen.

    Each sentence has a file of its own, written whole; so several processes can share a folder,
    and what they write twice is equal. Sentences lie under their encoder's identity.
    """

    def __init__(self, encoder: TextEncoder, folder: Path) -> None:
        """Keeps what ``encoder`` says below ``folder``, which is made when needed."""
        self.encoder = encoder
        self.folder = folder

    @property
    def name(self) -> str:
        """The encoder's name."""
        return self.encoder.name

    @property
    def identity(self) -> str:
        """The encoder's identity."""
        return self.encoder.identity

    @property
    def dim(self) -> int:
        """The encoder's width."""
        return self.encoder.dim

    def __call__(self, sentences: Sequence[str | Sequence[str]]) -> TextFeatures:
        """Encodes sentences; see :class:`TextEncoder`."""
        paths = [self.path(sentence) for sentence in sentences]
        known = {path: _read(path) for path in set(paths)}
        missing = {
            path: sentence
            for path, sentence in zip(paths, sentences, strict=True)
            if known[path] is None
        }
        if missing:
            encoded = self.encoder(list(missing.values()))
            for index, path in enumerate(missing):
                words = encoded.words[index][encoded.mask[index]].clone()
                known[path] = words, encoded.embeddings[index].clone()
                _write(path, *known[path])
        return TextFeatures.collate(*zip(*(known[path] for path in paths), strict=True))

    def path(self, sentence: str | Sequence[str]) -> Path:
        """Where a sentence's features lie."""
        encoder = hashlib.sha256(self.identity.encode()).hexdigest()[:16]
        content = json.dumps(sentence if isinstance(sentence, str) else list(sentence))
        return self.folder / encoder / f"{hashlib.sha256(content.encode()).hexdigest()[:32]}.pt"


def _read(path: Path) -> tuple[Tensor, Tensor] | None:
    """A sentence's words and embedding, or None where they are not there or not readable."""
    if not path.is_file():
        return None
    try:
        state = load_state(path, FORMAT)
    except (InputError, OSError) as error:
        log.warning("%s; the sentence is encoded again", error)
        return None
    return state["words"], state["embedding"]


def _write(path: Path, words: Tensor, embedding: Tensor) -> None:
    """Keeps a sentence; a folder that cannot be written to costs only time."""
    try:
        save_state(path, {"format": FORMAT, "words": words, "embedding": embedding})
    except OSError as error:
        log.warning("%s cannot be written (%s); the sentence is not kept", path, error)
