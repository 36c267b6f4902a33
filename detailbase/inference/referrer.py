"""A trained network that marks in a scan what the phrases of a sentence name."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from detailbase.config import Config
from detailbase.data.batches import make_batch
from detailbase.descriptions.phrases import find_phrases
from detailbase.descriptions.references import Phrase, Reference, split_words
from detailbase.descriptions.sentences import Sentences, word_encoder
from detailbase.inference.answering import THRESHOLD, answer
from detailbase.model.checkpoint import Checkpoint
from detailbase.model.network import DetailBase
from detailbase.scans.scan import Scan, read_scan_file
from refer3d.runs.device import choose_device
from refer3d.runs.errors import InputError
from refer3d.text_encoder import TextEncoder

log = logging.getLogger(__name__)

DEMO = Path(__file__).parent / "demo" / "best.pth"
"""The checkpoint that comes with the package: a small network, for synthetic rooms."""


class Marked(NamedTuple):
    """What a phrase names."""

    phrase: str
    word: int
    """Where in the sentence its head stands."""
    score: float
    """How well the mask is thought to fit, as an IoU; 0 of an empty one."""
    mask: np.ndarray
    """[N] bool, the scan's points."""


class Referrer:
    """Finds in scans what phrases name.

    >>> referrer = Referrer.load("best.pth")
    >>> scan = referrer.read("scan.ply")
    >>> for marked in referrer.mark(scan, "the brown chair next to the two windows"):
    ...     print(marked.phrase, marked.score, scan.vertices[marked.mask])
    """

    def __init__(self, network: DetailBase, encoder: TextEncoder, config: Config) -> None:
        """Takes a network, the language model that it was trained with, and its options."""
        self.network = network
        self.encoder = encoder
        self.config = config

    @classmethod
    def load(
        cls, checkpoint: Path | str = DEMO, config: Path | str | None = None, device: str = "auto"
    ) -> Referrer:
        """Reads the weights of a training, by default those that come with the repository.

        Args:
            checkpoint: A ``best.pth``, or a published one.
            config: The options that the network is built by; needed of a published one.
            device: ``auto`` takes a GPU where there is one.

        Raises:
            InputError: A file is absent, broken or does not fit the other.
        """
        path, where = Path(checkpoint), choose_device(device)
        if not path.is_file():
            advice = "name the best.pth of a training"
            if path == DEMO:
                advice += ", or install by pip install -e: the repository has one"
            raise InputError(f"--checkpoint: {path}: no such file; {advice}")
        read = Checkpoint.read(path)
        options = read.options(None if config is None else Path(config))
        encoder = word_encoder(options.text, where)
        return cls(read.network(options, encoder, where), encoder, options)

    def read(
        self, path: Path | str, unit: str = "m", up: str = "z", max_points: int = 1_000_000
    ) -> Scan:
        """Reads a PLY file as the network wants it; see ``read_scan_file``.

        Raises:
            InputError: The file is absent or broken, or its size makes no sense in the unit.
        """
        rule = self.config.data.superpoints
        return read_scan_file(Path(path), unit, up, max_points, rule)

    @torch.no_grad()
    def mark(self, scan: Scan, sentence: str, phrases: Sequence[str] | None = None) -> list[Marked]:
        """Marks what each noun phrase of a sentence names, in the sentence's order.

        Args:
            scan: From :meth:`read`.
            sentence: English, of any length; what the language model cannot read is left out.
            phrases: Which parts of the sentence to mark, instead of its noun phrases.

        Raises:
            InputError: The sentence is no text or has no phrase, or a given one is not in it.
        """
        for text in (sentence, *(phrases or ())):
            if any(not (c.isprintable() or c.isspace()) for c in text):  # bytes that are no text
                raise InputError(f"sentence: expected words, got {text!a}; write it as plain text")
        words = split_words(sentence)
        found = given_phrases(words, phrases) if phrases else find_phrases(words)
        if not found:
            raise InputError(
                f"sentence: found no noun phrase in {sentence!r}; give them by --phrases"
            )
        asked = tuple(Phrase(str(head), ()) for head, _ in found)
        reference = Reference("scan", "0", tuple(words), asked)
        device = next(self.network.parameters()).device
        sentences = Sentences.encode(self.encoder, [reference], device)
        for phrase, (_, text) in zip(asked, found, strict=True):
            if not sentences.reaches(reference.words, phrase.query):
                log.warning(
                    "%r stands behind what the language model reads: nothing is marked", text
                )
        batch = make_batch([scan.cloud], [[reference]], self.config.data).to(device)
        marked = []
        answers = answer(self.network, batch, sentences)
        for (head, text), (probability, score) in zip(found, answers, strict=True):
            mask = (probability >= THRESHOLD).cpu().numpy()[scan.owner]
            # The score is learned from masks that are not empty.
            marked.append(Marked(text, head, float(score) if mask.any() else 0.0, mask))
        return marked


def given_phrases(words: Sequence[str], phrases: Sequence[str]) -> list[tuple[int, str]]:
    """Where each phrase stands in the sentence; its last word is its head.

    Raises:
        InputError: One is not in the sentence, or not so often.
    """
    found: list[tuple[int, str]] = []
    for phrase in phrases:
        wanted = split_words(phrase)
        places = [
            start
            for start in range(len(words) - len(wanted) + 1)
            if wanted and list(words[start : start + len(wanted)]) == wanted
        ]
        said = sum(split_words(other) == wanted for _, other in found)  # the same words again
        if len(places) <= said:
            often = f"only {said} times" if said else "not"
            raise InputError(
                f"--phrases: {phrase!r} is {often} in the sentence {' '.join(words)!r}; "
                "give it as it stands there"
            )
        found.append((places[said] + len(wanted) - 1, phrase))
    return found
