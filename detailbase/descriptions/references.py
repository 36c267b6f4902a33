"""Descriptions of objects in scans: DetailRefer, ScanRefer and Multi3DRefer.

All are lists of records with ``scene_id`` and ``ann_id``. DetailRefer's have ``token``, the words,
and ``t2o``, which gives for the index of a phrase's word the ids of the objects that the phrase
names. ScanRefer's describe one object, ``object_id``, by the sentence as a whole; Multi3DRefer's
any number of them, ``object_ids``.

A description is scored among those of its scene, not by its ``ann_id``, which need not be its own:
ScanRefer numbers the descriptions of each object anew.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refer3d.runs.errors import InputError
from refer3d.runs.records import read_json, short

log = logging.getLogger(__name__)

WHOLE = "-1"
"""The key of the phrase that is the whole sentence; the begin token answers for it."""


@dataclass(frozen=True)
class Phrase:
    """What a noun phrase names."""

    key: str
    """The index of its word, or ``WHOLE``."""
    object_ids: tuple[int, ...]
    """The scan's objects; none where the description fits nothing."""

    @property
    def query(self) -> int:
        """Which of the network's queries answers: the begin token is 0, word k is k + 1."""
        return int(self.key) + 1


@dataclass(frozen=True)
class Reference:
    """A description of a scan."""

    scene_id: str
    ann_id: str
    words: tuple[str, ...]
    phrases: tuple[Phrase, ...]
    kind: str = ""
    """Multi3DRefer's ``eval_type``."""
    object_id: str = ""
    """The described object."""


def read_references(path: Path, dataset: str) -> list[Reference]:
    """The descriptions in a file.

    Args:
        path: The JSON file.
        dataset: ``detailrefer``, ``scanrefer`` or ``multi3drefer``. DetailRefer's records without
            ``t2o`` are ScanRefer's.

    Raises:
        InputError: The file, a record or a field of it is wrong.
    """
    records = read_json(path)
    if not isinstance(records, list) or not records:
        raise InputError(
            f"{path}: expected a list of descriptions, got {short(records)}; copy it again"
        )
    read: Callable[[Record], Reference] = {
        "detailrefer": _detailrefer,
        "scanrefer": _scanrefer,
        "multi3drefer": _multi3drefer,
    }[dataset]
    found = [read(Record(content, f"{path}: record {i}")) for i, content in enumerate(records)]
    references = [reference for reference in found if reference.phrases]
    if not references:
        raise InputError(f"{path}: none of its descriptions names an object; copy it again")
    if len(references) < len(found):
        log.warning(
            "%s: %d of %d descriptions name nothing and are left out",
            *(path, len(found) - len(references), len(found)),
        )
    return references


class Record:
    """One entry of a file, whose fields are checked when they are read."""

    def __init__(self, content: Any, where: str) -> None:
        self.content, self.where = content, where
        if not isinstance(content, dict):
            raise self.error("the record", "an object with fields", content)

    def error(self, field: str, expected: str, value: Any) -> InputError:
        """What is wrong with a field."""
        return InputError(
            f"{self.where}: {field}: expected {expected}, got {short(value)}; correct the record "
            "or take it out"
        )

    def identity(self, name: str) -> str:
        """A name or number, as text."""
        value = self.content.get(name)
        if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
            raise self.error(name, "a name or a number", value)
        return str(value)

    def words(self) -> tuple[str, ...]:
        """The words: ``token``, else those of ``description``."""
        value = self.content.get("token")
        if value is None and isinstance(self.content.get("description"), str):
            value = split_words(self.content["description"])
        is_list = isinstance(value, list) and len(value) > 0
        if not is_list or not all(isinstance(word, str) for word in value):
            raise self.error("token", "a list of words", value)
        return tuple(value)

    def objects(self, name: str, value: Any) -> tuple[int, ...]:
        """Ids of objects; numbers, perhaps written as text."""
        if isinstance(value, list):
            ids = [
                int(x) if isinstance(x, str) and re.fullmatch(r"\d{1,10}", x) else x for x in value
            ]
            if all(type(x) is int and 0 <= x < 2**31 for x in ids):
                return tuple(sorted(set(ids)))
        raise self.error(name, "a list of object ids", value)


def _detailrefer(record: Record) -> Reference:
    if "t2o" not in record.content:
        return _scanrefer(record)
    words, named = record.words(), record.content["t2o"]
    if not isinstance(named, dict):
        raise record.error("t2o", "lists of object ids by the index of a word", named)
    phrases = []
    for key, value in named.items():
        if not re.fullmatch(r"-1|\d{1,6}", key) or int(key) >= len(words):
            raise record.error(f"t2o[{key!r}]", f"a word's index below {len(words)}, or -1", key)
        if any(phrase.query == int(key) + 1 for phrase in phrases):
            raise record.error("t2o", f"the word {int(key)} once", key)
        phrases.append(Phrase(str(int(key)), record.objects(f"t2o[{key!r}]", value)))
    phrases.sort(key=lambda phrase: phrase.query)
    return Reference(*_names(record), words, tuple(phrases), object_id=_object(record))


def _scanrefer(record: Record) -> Reference:
    (number,) = record.objects("object_id", [record.content.get("object_id")])
    whole = Phrase(WHOLE, (number,))
    return Reference(*_names(record), record.words(), (whole,), object_id=str(number))


def _multi3drefer(record: Record) -> Reference:
    ids = record.objects("object_ids", record.content.get("object_ids"))
    kind = record.identity("eval_type") if "eval_type" in record.content else ""
    return Reference(*_names(record), record.words(), (Phrase(WHOLE, ids),), kind)


def _names(record: Record) -> tuple[str, str]:
    return record.identity("scene_id"), record.identity("ann_id")


def _object(record: Record) -> str:
    return record.identity("object_id") if "object_id" in record.content else ""


def split_words(text: str) -> list[str]:
    """Words and punctuation marks, in small letters, as the datasets' ``token``."""
    return re.findall(r"\w+(?:['’-]\w+)*|[^\w\s]", text.lower())
