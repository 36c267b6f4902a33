"""Encoded sentences on disk."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from refer3d.runs.errors import InputError
from refer3d.runs.files import HOUR, sweep_drafts
from refer3d.runs.states import Array, load_state, save_state
from refer3d.text_encoder.features import TextEncoder, TextFeatures

log = logging.getLogger(__name__)

FORMAT = 2
"""Grows where features of the same weights get other bits."""
SCHEMA = {"words": Array(("L", "T")), "embedding": Array(("T",))}


class CachedTextEncoder:
    """Encoder that runs a slower one only for new sentences.

    Each sentence has a file of its own below the encoder's identity. Files appear whole, so several
    processes can share a folder.
    """

    def __init__(self, encoder: TextEncoder, folder: Path) -> None:
        """Stores the features of ``encoder`` below ``folder``, which is made when needed."""
        self.encoder = encoder
        self.folder = folder
        self._is_swept = False

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
        features = {path: read for path in set(paths) if (read := _read(path)) is not None}
        missing = {
            path: sentence
            for path, sentence in zip(paths, sentences, strict=True)
            if path not in features
        }
        if missing:
            if not self._is_swept:
                sweep_drafts(self.folder, HOUR)
                self._is_swept = True
            encoded = self.encoder(list(missing.values()))
            for index, path in enumerate(missing):
                words = encoded.words[index][encoded.mask[index]].clone()
                features[path] = words, encoded.embeddings[index].clone()
                _write(path, *features[path])
        words, embeddings = zip(*(features[path] for path in paths), strict=True)
        return TextFeatures.collate(words, embeddings)

    def path(self, sentence: str | Sequence[str]) -> Path:
        """Returns the file of a sentence's features."""
        encoder = hashlib.sha256(f"{FORMAT} {self.identity}".encode()).hexdigest()[:16]
        content = json.dumps(sentence if isinstance(sentence, str) else list(sentence))
        return self.folder / encoder / f"{hashlib.sha256(content.encode()).hexdigest()[:32]}.pt"


def _read(path: Path) -> tuple[Tensor, Tensor] | None:
    """Reads a sentence's words and embedding; None if absent or damaged."""
    if not path.is_file():
        return None
    try:
        state = load_state(path, FORMAT, SCHEMA)
    except (InputError, OSError) as error:
        log.warning("%s; the sentence is encoded again", error)
        return None
    return state["words"], state["embedding"]


def _write(path: Path, words: Tensor, embedding: Tensor) -> None:
    """Stores a sentence; a folder that cannot be written to costs only time."""
    try:
        save_state(path, {"format": FORMAT, "words": words, "embedding": embedding})
    except OSError as error:
        log.warning("%s cannot be written (%s); the sentence is not stored", path, error)
