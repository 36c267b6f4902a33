"""A trained network that segments the phrases of a sentence in a scan."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from detailbase.command import check_checkpoint
from detailbase.config import Config
from detailbase.data.batches import make_batch
from detailbase.descriptions.references import Phrase, Reference, split_words
from detailbase.descriptions.sentences import Sentences, word_encoder
from detailbase.inference.answering import angles, answer
from detailbase.model.checkpoint import Checkpoint
from detailbase.model.network import DetailBase
from detailbase.scans.scan import Scan, read_scan_file
from refer3d.language import find_phrases
from refer3d.runs.device import choose_device
from refer3d.runs.errors import InputError
from refer3d.text_encoder import TextEncoder

log = logging.getLogger(__name__)

DEMO = Path(__file__).parent / "demo" / "best.pth"
"""Checkpoint of the package: a small network, trained on synthetic rooms."""


class PhraseMask(NamedTuple):
    """The mask of a phrase."""

    phrase: str
    word: int
    """Index of its head in the sentence."""
    score: float
    """Predicted IoU of the mask; 0 of an empty one."""
    mask: np.ndarray
    """[N] bool, one entry per point of the scan."""


class Referrer:
    """Segments phrases in scans.

    Examples:
        >>> referrer = Referrer.load("best.pth")
        >>> scan = referrer.read("scan.ply")
        >>> for answer in referrer.mark(scan, "the gray armchair beside the white wardrobe"):
        ...     print(answer.phrase, answer.score, scan.vertices[answer.mask])
    """

    def __init__(self, network: DetailBase, encoder: TextEncoder, config: Config) -> None:
        """Takes a network, the text encoder that it was trained with, and its options."""
        self.network = network
        self.encoder = encoder
        self.config = config

    @classmethod
    def load(
        cls, checkpoint: Path | str = DEMO, config: Path | str | None = None, device: str = "auto"
    ) -> Referrer:
        """Loads a checkpoint, by default the package's.

        Args:
            checkpoint: A ``best.pth``, or a published checkpoint.
            config: Options of the network; required for a published checkpoint.
            device: ``auto`` takes a GPU where there is one.

        Raises:
            InputError: A file is absent, broken or does not fit the other.
        """
        path, torch_device = Path(checkpoint), choose_device(device)
        advice = "install refer3d again" if path == DEMO else "name the best.pth of a training"
        check_checkpoint(path, advice)
        content = Checkpoint.read(path)
        options = content.options(None if config is None else Path(config))
        encoder = word_encoder(options.text, torch_device)
        return cls(content.network(options, encoder, torch_device), encoder, options)

    def read(
        self, path: Path | str, unit: str = "m", up: str = "auto", max_points: int = 1_000_000
    ) -> Scan:
        """Reads a scan for the network; see :func:`~detailbase.scans.scan.read_scan_file`.

        Raises:
            InputError: The file is absent or broken, or its size makes no sense in the unit.
        """
        rule = self.config.data.superpoints
        return read_scan_file(Path(path), unit, up, max_points, rule)

    @torch.no_grad()
    def mark(
        self, scan: Scan, sentence: str, phrases: Sequence[str] | None = None, turns: int = 1
    ) -> list[PhraseMask]:
        """Segments each noun phrase of a sentence, in the sentence's order.

        Args:
            scan: A result of :meth:`read`.
            sentence: English; a phrase behind the text encoder's last word gets an empty mask.
            phrases: Parts of the sentence to segment instead of its noun phrases.
            turns: Number of turns of the scan that the answer is averaged over; it takes so many
                times as long.

        Raises:
            InputError: The sentence is no text or has no phrase, or a given one is not in it.
        """
        for text in (sentence, *(phrases or ())):
            if any(not (c.isprintable() or c.isspace()) for c in text):  # undecodable bytes
                raise InputError(f"sentence: expected words, got {text!a}; write it as plain text")
        words = split_words(sentence)
        located = locate_phrases(words, phrases) if phrases else find_phrases(words)
        if not located:
            raise InputError(
                f"sentence: expected a noun phrase, got {sentence!r}; give phrases by --phrases"
            )
        queries = tuple(Phrase(str(head), ()) for head, _ in located)
        reference = Reference("scan", "0", tuple(words), queries)
        device = next(self.network.parameters()).device
        sentences = Sentences.encode(self.encoder, [reference], device)
        for phrase, (_, text) in zip(queries, located, strict=True):
            if not sentences.reaches(reference.words, phrase.query):
                log.warning(
                    "%r stands behind the text encoder's last word: its mask is empty", text
                )
        batches = [
            make_batch([scan.cloud], [[reference]], self.config.data, turn=turn).to(device)
            for turn in angles(turns)
        ]
        masks = []
        answers = answer(self.network, batches, sentences)
        for (head, text), (marked, score) in zip(located, answers, strict=True):
            mask = marked.cpu().numpy()[scan.owner]
            # Empty masks do not train the score.
            masks.append(PhraseMask(text, head, float(score) if mask.any() else 0.0, mask))
        return masks


def locate_phrases(words: Sequence[str], phrases: Sequence[str]) -> list[tuple[int, str]]:
    """Finds phrases in a sentence; returns the index of each one's last word, which is its head.

    Raises:
        InputError: A phrase is not in the sentence, or not so often.
    """
    words, located, taken = list(words), [], set()
    for phrase in phrases:
        part = split_words(phrase)
        spans = [(a, a + len(part)) for a in range(len(words) if part else 0)]
        free = (span for span in spans if words[slice(*span)] == part and span not in taken)
        span = next(free, None)
        if span is None:
            raise InputError(
                f"--phrases: {phrase!r} is not, or not so often, in the sentence "
                f"{' '.join(words)!r}; give it as it stands there"
            )
        taken.add(span)
        located.append((span[1] - 1, phrase))
    return located
