"""The json file of a photo: Ref-LERF's fields, and how each mask came about."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from refer3d.runs.errors import InputError
from refer3d.runs.files import atomic_write
from refer3d.runs.records import read_json, short
from refer3d.runs.states import Maybe, Number, check
from refersplat.masks.sentences import Subject

_REMEDY = "delete it, and its photo is masked again"
SUBJECT = {"category": Maybe(str), "sentence": [str]}
RECORD = {
    "object": [
        {
            **SUBJECT,
            "segmentation": str,
            **dict.fromkeys(("confidence", "agreement"), Number(float)),
            "candidates": [Number(int, 0)],
        }
    ],
    "absent": [SUBJECT],
    "same": [[str]],
}
"""Schema of a record."""


@dataclass(frozen=True)
class Masked:
    """The mask of an object in a photo."""

    file: str
    """Name in ``gt_mask/``."""
    confidence: float
    agreement: float
    candidates: tuple[int, ...]
    """Number of candidates of each sentence."""


@dataclass
class PhotoRecord:
    """What was found in a photo."""

    masks: dict[Subject, Masked] = field(default_factory=dict)
    absent: list[Subject] = field(default_factory=list)
    """Objects of which no sentence had a candidate."""
    same: list[tuple[str, str]] = field(default_factory=list)
    """Names of two objects whose masks are nearly the same."""

    def knows(self, subject: Subject) -> bool:
        """Whether the object was looked for, with the same sentences."""
        return subject in self.masks or subject in self.absent

    def write(self, path: Path) -> None:
        """Writes the file; ``absent`` and ``same`` are fields that readers of Ref-LERF skip."""
        objects = [
            {
                **_fields(subject),
                "segmentation": masked.file,
                "confidence": masked.confidence,
                "agreement": masked.agreement,
                "candidates": list(masked.candidates),
            }
            for subject, masked in self.masks.items()
        ]
        content = {
            "object": objects,
            "absent": [_fields(subject) for subject in self.absent],
            "same": [list(pair) for pair in self.same],
        }
        with atomic_write(path) as file:
            file.write(json.dumps(content, indent=1, ensure_ascii=False).encode())


def read_record(path: Path) -> PhotoRecord | None:
    """Reads the file of a photo; None if there is none.

    Raises:
        InputError: It is damaged.
    """
    if not path.is_file():
        return None
    content = check(read_json(path, dict, if_broken=_REMEDY), RECORD, str(path), _REMEDY)
    record = PhotoRecord(absent=[_subject(item) for item in content["absent"]])
    for item in content["object"]:
        scores = item["confidence"], item["agreement"], tuple(item["candidates"])
        record.masks[_subject(item)] = Masked(item["segmentation"], *scores)
    for pair in content["same"]:
        if len(pair) != 2:
            raise InputError(f"{path}: same: expected pairs of names, got {short(pair)}; {_REMEDY}")
        record.same.append((pair[0], pair[1]))
    return record


def _fields(subject: Subject) -> dict[str, Any]:
    category = {"category": subject.category} if subject.category else {}
    return {**category, "sentence": list(subject.sentences)}


def _subject(item: Mapping[str, Any]) -> Subject:
    return Subject(item["category"], tuple(item["sentence"]))
