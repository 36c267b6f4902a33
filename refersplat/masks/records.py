"""The json file of a photo: Ref-LERF's fields, and how each mask came about."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from refer3d.runs.files import atomic_write
from refer3d.runs.records import as_kind, read_json, take
from refersplat.masks.sentences import Subject

_REMEDY = "delete it, and its photo is masked again"


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
    content = read_json(path, dict, if_broken=_REMEDY)
    record = PhotoRecord()
    for index, item in enumerate(take(content, "object", list, str(path), _REMEDY)):
        where = f"{path}: object[{index}]"
        as_kind(item, dict, where, _REMEDY)
        record.masks[_subject(item, where)] = Masked(
            file=take(item, "segmentation", str, where, _REMEDY),
            confidence=take(item, "confidence", float, where, _REMEDY),
            agreement=take(item, "agreement", float, where, _REMEDY),
            candidates=tuple(take(item, "candidates", list, where, _REMEDY)),
        )
    for index, item in enumerate(take(content, "absent", list, str(path), _REMEDY)):
        where = f"{path}: absent[{index}]"
        record.absent.append(_subject(as_kind(item, dict, where, _REMEDY), where))
    pairs: Sequence[Sequence[str]] = take(content, "same", list, str(path), _REMEDY)
    record.same = [(one, other) for one, other in pairs]
    return record


def _fields(subject: Subject) -> dict[str, Any]:
    category = {"category": subject.category} if subject.category else {}
    return {**category, "sentence": list(subject.sentences)}


def _subject(item: Mapping[str, Any], where: str) -> Subject:
    return Subject(item.get("category"), tuple(take(item, "sentence", list, where, _REMEDY)))
