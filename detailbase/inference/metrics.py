"""Metrics of masks: one function each, in one table, and their means over phrases and sentences."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from detailbase.descriptions.references import Reference

LONG = 50
"""Most words of a sentence that is not long."""
COMPLEX = 4
"""Fewest phrases of a complex sentence."""


@dataclass(frozen=True)
class Masks:
    """The predicted and the true mask of a phrase on the N points of its scan."""

    prediction: Tensor
    """[N] bool."""
    truth: Tensor
    """[N] bool."""
    superpoints: Tensor
    """[N] int64, each point's superpoint, numbered from 0."""

    @cached_property
    def iou(self) -> float:
        """Intersection over union; 1 where both are empty, as Multi3DRefer scores zero targets."""
        union = int((self.prediction | self.truth).sum())
        return int((self.prediction & self.truth).sum()) / union if union else 1.0


def oracle_iou(masks: Masks) -> float:
    """Computes the greatest IoU with the true mask of any union of superpoints.

    It is reached by taking superpoints in the order of their share of the mask, up to some one:
    taking one in raises the IoU exactly if its share is above IoU / (1 + IoU).
    """
    if not masks.truth.any():
        return 1.0
    sizes = torch.bincount(masks.superpoints)
    inside = torch.bincount(masks.superpoints[masks.truth], minlength=len(sizes))
    order = (inside / sizes.clamp(min=1)).argsort(dim=0, descending=True)
    intersection = inside[order].cumsum(dim=0)
    union = inside.sum() + (sizes - inside)[order].cumsum(dim=0)
    return float((intersection.double() / union).max())


METRICS: dict[str, Callable[[Masks], float]] = {
    "mIoU": lambda masks: masks.iou,
    "acc@0.25": lambda masks: float(masks.iou > 0.25),
    "acc@0.5": lambda masks: float(masks.iou > 0.5),
    "oracle": oracle_iou,
}
"""Metrics of a phrase's masks. To add one, add a function here: results.json and the table then
hold its mean over the phrases."""


class PhraseScores(NamedTuple):
    """The value of each metric for a phrase."""

    reference: Reference
    key: str
    sentence: int
    """Number of the description among those that are scored."""
    scores: Mapping[str, float]


def summarize(rows: Sequence[PhraseScores]) -> dict[str, float]:
    """Averages each metric over phrases; ``smIoU`` averages the sentences' mean IoU."""
    sentences: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        sentences[row.sentence].append(row.scores["mIoU"])
    return {
        **{name: _mean(row.scores[name] for row in rows) for name in METRICS},
        "smIoU": _mean(_mean(ious) for ious in sentences.values()),
        "phrases": len(rows),
        "sentences": len(sentences),
    }


def log_names(scores: Mapping[str, float]) -> dict[str, float]:
    """Renames scores as users of this family know them from their logs."""
    names = {"mIOU": "mIoU", "Acc_50": "acc@0.5", "Acc_25": "acc@0.25", "smIOU": "smIoU"}
    return {shown: scores[name] for shown, name in names.items()}


def by_kind(rows: Sequence[PhraseScores]) -> dict[str, dict[str, float]]:
    """Summarises long sentences, complex ones, and the dataset's own kinds."""
    groups = {
        "long": [row for row in rows if len(row.reference.words) > LONG],
        "complex": [row for row in rows if len(row.reference.phrases) >= COMPLEX],
    }
    for kind in sorted({kind for row in rows for kind in row.reference.kinds}):
        groups[kind] = [row for row in rows if kind in row.reference.kinds]
    return {name: summarize(group) for name, group in groups.items() if group}


def by_scene(rows: Sequence[PhraseScores]) -> dict[str, dict[str, float]]:
    """Summarises each scan."""
    scenes: dict[str, list[PhraseScores]] = defaultdict(list)
    for row in rows:
        scenes[row.reference.scene_id].append(row)
    return {scene_id: summarize(group) for scene_id, group in sorted(scenes.items())}


def ious_by_name(rows: Sequence[PhraseScores]) -> dict[str, float]:
    """Names each phrase's IoU ``<scene>_<ann>_<key>``, as users of this family know it.

    Both numbers have three digits.

    Where several objects of a scan share an annotation's number, their phrases would overwrite each
    other: the name is then ``<scene>_<object>_<ann>_<key>``.
    """
    names = [(r.reference.scene_id, r.reference.ann_id.zfill(3), r.key.zfill(3)) for r in rows]
    count, ious = Counter(names), {}
    for name, row in zip(names, rows, strict=True):
        is_shared = count[name] > 1 and row.reference.object_id
        middle = (row.reference.object_id,) if is_shared else ()
        ious["_".join((name[0], *middle, *name[1:]))] = row.scores["mIoU"]
    return ious


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values) if values else float("nan")
