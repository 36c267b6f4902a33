"""Metrics of masks: one function each, in one table, and their means over phrases and sentences."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from detailbase.data.wording import Named, head, named_objects
from detailbase.descriptions.references import Reference

LONG = 50
"""Most words of a sentence that is not long."""
TENTHS = 10
"""Bins of the calibration table."""
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
    instances: Tensor | None = None
    """[N] int64, each point's object, negative for none."""
    alike: Collection[int] = ()
    """Ids of the objects that the phrase's name fits, the phrase's own among them."""

    @cached_property
    def iou(self) -> float:
        """Intersection over union; 1 where both are empty, as Multi3DRefer scores zero targets."""
        union = int((self.prediction | self.truth).sum())
        return int((self.prediction & self.truth).sum()) / union if union else 1.0

    @cached_property
    def coverage(self) -> dict[int, tuple[int, int]]:
        """Points of each object, and how many of them are in the prediction."""
        if self.instances is None:
            return {}
        ids, columns = self.instances.unique(return_inverse=True)
        sizes = torch.bincount(columns).tolist()
        inside = torch.bincount(columns[self.prediction], minlength=len(ids)).tolist()
        return {
            int(index): (size, count)
            for index, size, count in zip(ids.tolist(), sizes, inside, strict=True)
            if index >= 0
        }

    @cached_property
    def covered(self) -> set[int]:
        """Objects of which more than half is in the prediction."""
        return {index for index, (size, count) in self.coverage.items() if 2 * count > size}


def holes(masks: Masks) -> float:
    """Computes the share that the prediction lacks of the objects that it covers mostly."""
    covered = [masks.coverage[index] for index in masks.covered]
    size = sum(size for size, _ in covered)
    return 1 - sum(count for _, count in covered) / size if size else 0.0


def stray(masks: Masks) -> float:
    """Computes the share of the prediction that lies in objects of which it covers little."""
    size = int(masks.prediction.sum())
    if masks.instances is None or not size:
        return 0.0
    return 1 - sum(masks.coverage[index][1] for index in masks.covered) / size


def whole_class(masks: Masks) -> float:
    """Tells whether every object of the phrase's name was taken, where it means some of them."""
    if masks.instances is None:
        return 0.0
    meant = {*masks.instances[masks.truth].unique().tolist()}
    return float(meant < {*masks.alike} <= masks.covered)


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
    "holes": holes,
    "stray": stray,
    "class": whole_class,
}
"""Metrics of a phrase's masks. To add one, add a function here: results.json and the table then
hold its mean over the phrases."""


class PhraseScores(NamedTuple):
    """The value of each metric for a phrase, and the score that the network gave its mask."""

    reference: Reference
    key: str
    sentence: int
    """Number of the description among those that are scored."""
    scores: Mapping[str, float]
    confidence: float = 0.0
    """Predicted IoU; 0 of an empty mask."""


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
    """Summarises long sentences, complex ones, phrases whose name fits other objects of the scan,
    too, and the dataset's own kinds.
    """
    named = named_objects(row.reference for row in rows)
    groups = {
        "long": [row for row in rows if len(row.reference.words) > LONG],
        "complex": [row for row in rows if len(row.reference.phrases) >= COMPLEX],
        "one of several": [row for row in rows if is_one_of_several(row, named)],
    }
    for kind in sorted({kind for row in rows for kind in row.reference.kinds}):
        groups[kind] = [row for row in rows if kind in row.reference.kinds]
    return {name: summarize(group) for name, group in groups.items() if group}


def is_one_of_several(row: PhraseScores, named: Named) -> bool:
    """Tells whether a phrase's name fits more objects of its scan than it means."""
    phrase = next(phrase for phrase in row.reference.phrases if phrase.key == row.key)
    alike = named.get((row.reference.scene_id, head(row.reference, phrase)), frozenset())
    return bool(phrase.object_ids) and alike > {*phrase.object_ids}


def calibration(rows: Sequence[PhraseScores]) -> dict[str, Any]:
    """Compares the scores of masks with their IoUs, in tenths of the score.

    Empty masks are left out: they have no score, and are right where nothing is meant.

    Returns:
        ``bins``: for each tenth that has phrases its bounds, their number, mean score, mean IoU.
        ``error``: the expected calibration error, the mean of the differences of these means; NaN
            without a mask.
    """
    scored, bins = [row for row in rows if row.confidence], []
    for tenth in range(TENTHS):
        # A network that does not choose objects may score below 0 or above 1.
        own = [r for r in scored if min(max(int(TENTHS * r.confidence), 0), TENTHS - 1) == tenth]
        if own:
            means = (_mean(r.confidence for r in own), _mean(r.scores["mIoU"] for r in own))
            bounds = {"from": tenth / TENTHS, "to": (tenth + 1) / TENTHS, "phrases": len(own)}
            bins.append(bounds | dict(zip(("score", "mIoU"), means, strict=True)))
    error = _mean(abs(b["score"] - b["mIoU"]) for b in bins for _ in range(b["phrases"]))
    return {"bins": bins, "error": error}


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
