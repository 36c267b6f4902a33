"""The objects to mask, and words of their sentences that name them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from refer3d.language import parse
from refer3d.runs.errors import InputError
from refer3d.runs.files import decode_text
from refer3d.runs.records import as_kind, read_json
from refersplat.data.images import fold
from refersplat.data.names import digest, slug

_LINKS = {"a", "an", "and", "for", "in", "of", "or", "the", "to", "with"}
"""Words inside compound nouns ("box of crackers") that name nothing."""


@dataclass(frozen=True)
class Subject:
    """An object that sentences describe."""

    category: str | None
    """Its name; None where the file gives sentences alone."""
    sentences: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name for reports."""
        return self.category or self.sentences[0]

    @property
    def stem(self) -> str:
        """First part of its masks' file names; depends on nothing but the name."""
        if re.fullmatch(r"\w[\w-]{0,60}", self.name):
            return self.name
        return f"{slug(self.name)}-{digest(self.name)}"


def read_subjects(path: Path) -> list[Subject]:
    """Reads a text file, one object's sentence per line, or JSON ``{object: [sentence, …]}``.

    Raises:
        InputError: The file is absent or of another form, has no sentence, or has one twice under
            two objects.
    """
    if not path.is_file():
        raise InputError(f"--sentences: {path}: no such file; correct the path")
    if path.suffix.lower() == ".json":
        subjects = [
            Subject(category, _sentences(value, f"{path}: {category}"))
            for category, value in read_json(path, dict, if_broken="correct it").items()
        ]
    else:
        lines = dict.fromkeys(line.strip() for line in decode_text(path.read_bytes()).splitlines())
        subjects = [Subject(None, (line,)) for line in lines if re.search(r"\w", line)]
    if not subjects:
        raise InputError(f"--sentences: {path}: expected sentences, got none; write one per line")
    _check_distinct(subjects, path)
    return subjects


def _sentences(value: object, where: str) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else as_kind(value, list, where)
    texts = [as_kind(text, str, f"{where}[{i}]").strip() for i, text in enumerate(texts)]
    if empty := [i for i, text in enumerate(texts) if not re.search(r"\w", text)]:
        raise InputError(f"{where}[{empty[0]}]: expected a sentence, got no words; delete it")
    if not texts:
        raise InputError(f"{where}: expected sentences, got none; write one, or delete the object")
    return tuple(dict.fromkeys(texts))


def _check_distinct(subjects: list[Subject], path: Path) -> None:
    owners: dict[str, str] = {}
    for subject in subjects:
        for key in (fold(f"{subject.stem}.png"), *subject.sentences):
            if key in owners:
                text = "their masks' name" if key not in subject.sentences else repr(key)
                raise InputError(
                    f"{path}: {owners[key]!r} and {subject.name!r} share {text}; tell them apart"
                )
            owners[key] = subject.name


def noun_phrase(sentence: str) -> str:
    """The phrase that a sentence is about, without relations and ranks; else the sentence."""
    description = parse(sentence)
    phrases = [description, *description.parts, description.among]
    return next((item.text for item in phrases if item and item.text), sentence)


def noun_words(sentence: str) -> set[str]:
    """The words, in lower case, of the nouns that a sentence is about; empty if it has none."""
    description = parse(sentence)
    phrases = [description, *description.parts, description.among]
    nouns = " ".join(item.noun for item in phrases if item)
    return {*re.findall(r"\w+", nouns.lower())} - _LINKS
