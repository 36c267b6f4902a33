"""Descriptions of objects in scans, and the strict reading of their records."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from refer3d.runs.errors import InputError
from refer3d.runs.records import short

SENTENCE = "-1"
"""Key of the phrase that is the whole sentence; the begin token's query answers for it."""


@dataclass(frozen=True)
class Phrase:
    """A noun phrase and the objects that it names."""

    key: str
    """Index of its word, or ``SENTENCE``."""
    object_ids: tuple[int, ...]
    """The scan's objects; empty where the description fits nothing."""

    @property
    def query(self) -> int:
        """Index of the network's query for it: the begin token is 0, word k is k + 1."""
        return int(self.key) + 1


@dataclass(frozen=True)
class Reference:
    """A description of a scan.

    It is identified by its place in the file, not by ``ann_id``: ScanRefer numbers the descriptions
    of each object anew.
    """

    scene_id: str
    ann_id: str
    words: tuple[str, ...]
    phrases: tuple[Phrase, ...]
    kinds: tuple[str, ...] = ()
    """Groups of the dataset that are scored apart and that it belongs to."""
    object_id: str = ""
    """The described object."""


class Record:
    """One entry of a JSON file, whose fields are checked when they are read."""

    def __init__(self, content: Any, where: str) -> None:
        self.content, self.where = content, where
        if not isinstance(content, dict):
            raise self.error("the record", "an object with fields", content)

    def error(self, field: str, expected: str, value: Any) -> InputError:
        """Makes the error of a wrong field."""
        return InputError(
            f"{self.where}: {field}: expected {expected}, got {short(value)}; correct the record "
            "or take it out"
        )

    def identity(self, name: str, default: str | None = None) -> str:
        """Reads a name or number, as text; ``default`` stands in for an absent field."""
        value = self.content.get(name, default)
        if name not in self.content and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
            raise self.error(name, "a name or a number", value)
        return str(value)

    def words(self) -> tuple[str, ...]:
        """Reads the words: ``token``, else those of ``description``."""
        value = self.content.get("token")
        if value is None and isinstance(self.content.get("description"), str):
            value = split_words(self.content["description"])
        if isinstance(value, list) and value and all(isinstance(word, str) for word in value):
            return tuple(value)
        raise self.error("token", "a list of words", value)

    def objects(self, name: str, value: Any) -> tuple[int, ...]:
        """Checks a list of object ids, numbers that may be written as text; sorts it."""
        if isinstance(value, list):
            texts = [str(x) for x in value if type(x) in (int, str)]
            if len(texts) == len(value) and all(re.fullmatch(r"[0-9]{1,10}", t) for t in texts):
                ids = sorted({int(text) for text in texts})
                if not ids or ids[-1] < 2**31:
                    return tuple(ids)
        raise self.error(name, "a list of object ids", value)

    def reference(
        self, *phrases: Phrase, kinds: tuple[str, ...] = (), object_id: str = ""
    ) -> Reference:
        """Makes the description with the record's ``scene_id``, ``ann_id`` and words."""
        names = (self.identity("scene_id"), self.identity("ann_id"))
        return Reference(*names, self.words(), phrases, kinds, object_id)


def split_words(text: str) -> list[str]:
    """Splits a text into lower-case words and punctuation marks, as the datasets' ``token``."""
    return re.findall(r"\w+(?:['’-]\w+)*|[^\w\s]", text.lower())
