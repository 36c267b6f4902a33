"""Scores of masks for phrases, of sentences, and of kinds of sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from torch import Tensor

LONG = 50
"""A sentence is long from one word more."""
COMPLEX = 4
"""A sentence is complex from so many phrases."""


class Row(NamedTuple):
    """A phrase, and how well its mask fits."""

    scene_id: str
    ann_id: str
    key: str
    iou: float
    oracle: float
    """The best that superpoints allow."""
    num_words: int
    num_phrases: int
    kind: str = ""

    @property
    def name(self) -> str:
        """As in ``ious.json``."""
        return f"{self.scene_id}_{self.ann_id}_{self.key}"


def iou(mask: Tensor, target: Tensor) -> float:  # [N] bool, [N] bool
    """Intersection over union; 1 where both are empty, which is right of a zero target."""
    either = int((mask | target).sum())
    return int((mask & target).sum()) / either if either else 1.0


def summarise(rows: Sequence[Row]) -> dict[str, float]:
    """All scores of some phrases.

    ``mIoU``, ``acc@0.25`` and ``acc@0.5`` are over phrases, ``smIoU`` is the mean over sentences of
    the mean over their phrases, ``oracle`` what perfect choice of superpoints would reach. Long and
    complex sentences and kinds are scored apart, where there are any.
    """
    scores = _scores(rows)
    groups: dict[str, Callable[[Row], bool]] = {
        "long": lambda row: row.num_words > LONG,
        "complex": lambda row: row.num_phrases >= COMPLEX,
    }
    for kind in sorted({row.kind for row in rows if row.kind}):
        groups[kind] = lambda row, kind=kind: row.kind == kind
    for name, belongs in groups.items():
        chosen = [row for row in rows if belongs(row)]
        if chosen:
            scores |= {f"{name}_{key}": value for key, value in _scores(chosen).items()}
    return scores


def _scores(rows: Sequence[Row]) -> dict[str, float]:
    ious = [row.iou for row in rows]
    sentences: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        sentences.setdefault((row.scene_id, row.ann_id), []).append(row.iou)
    return {
        "mIoU": _mean(ious),
        "acc@0.25": _mean(value >= 0.25 for value in ious),
        "acc@0.5": _mean(value >= 0.5 for value in ious),
        "smIoU": _mean(_mean(values) for values in sentences.values()),
        "oracle": _mean(row.oracle for row in rows),
        "phrases": len(rows),
        "sentences": len(sentences),
    }


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values) if values else float("nan")
