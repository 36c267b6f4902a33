"""Scores of masks for phrases, of sentences, and of kinds of sentences."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

LONG = 50
"""A sentence is long from one word more."""
COMPLEX = 4
"""A sentence is complex from so many phrases."""
KINDS = {"zt": "zero targets", "st": "single target", "mt": "multiple targets"}
"""What Multi3DRefer's ``eval_type`` begins with."""


class Row(NamedTuple):
    """A phrase, and how well its mask fits."""

    scene_id: str
    object_id: str
    ann_id: str
    key: str
    sentence: int
    """Number of the description among those that are scored."""
    iou: float
    oracle: float
    """The best that superpoints allow."""
    num_words: int
    num_phrases: int
    kind: str = ""


def iou(mask: Tensor, target: Tensor) -> float:  # [N] bool, [N] bool
    """Intersection over union; 1 where both are empty, as Multi3DRefer scores zero targets."""
    either = int((mask | target).sum())
    return int((mask & target).sum()) / either if either else 1.0


def oracle_iou(superpoints: Tensor, count: int, target: Tensor) -> float:  # [N], S, [N] bool
    """The greatest IoU with ``target`` of any union of superpoints.

    It is reached by taking superpoints in the order of their share of the target, up to some one:
    taking one in raises the IoU exactly if its share is above IoU / (1 + IoU).
    """
    if not target.any():
        return 1.0
    sizes = torch.bincount(superpoints, minlength=count)
    inside = torch.bincount(superpoints[target], minlength=count)
    order = (inside / sizes.clamp(min=1)).argsort(dim=0, descending=True)
    both = inside[order].cumsum(dim=0)
    either = inside.sum() + (sizes - inside)[order].cumsum(dim=0)
    return float((both.double() / either).max())


def summarize(rows: Sequence[Row]) -> dict[str, float]:
    """The scores of some phrases.

    ``mIoU``, ``acc@0.25``, ``acc@0.5`` and ``oracle``, what the best choice of superpoints would
    reach, are means over phrases; ``smIoU`` is the mean over sentences of the mean over their
    phrases.
    """
    sentences: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        sentences[row.sentence].append(row.iou)
    return {
        "mIoU": _mean(row.iou for row in rows),
        "acc@0.25": _mean(row.iou > 0.25 for row in rows),
        "acc@0.5": _mean(row.iou > 0.5 for row in rows),
        "smIoU": _mean(_mean(ious) for ious in sentences.values()),
        "oracle": _mean(row.oracle for row in rows),
        "phrases": len(rows),
        "sentences": len(sentences),
    }


def logged(scores: dict[str, float]) -> dict[str, float]:
    """The scores by the names that users of this family know from their logs."""
    names = {"mIOU": "mIoU", "Acc_50": "acc@0.5", "Acc_25": "acc@0.25", "smIOU": "smIoU"}
    return {shown: scores[name] for shown, name in names.items()}


def by_kind(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """The scores of long sentences, of complex ones, and of the dataset's own kinds."""
    belongs: dict[str, Callable[[Row], bool]] = {
        "long": lambda row: row.num_words > LONG,
        "complex": lambda row: row.num_phrases >= COMPLEX,
    }
    for start, name in KINDS.items():
        belongs[name] = lambda row, start=start: row.kind.split("_")[0] == start
    for kind in sorted({row.kind for row in rows} - {""} - KINDS.keys()):
        belongs[kind] = lambda row, kind=kind: row.kind == kind
    chosen = {name: [row for row in rows if test(row)] for name, test in belongs.items()}
    return {name: summarize(some) for name, some in chosen.items() if some}


def by_scene(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """The scores of each scan."""
    scenes: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        scenes[row.scene_id].append(row)
    return {scene_id: summarize(own) for scene_id, own in sorted(scenes.items())}


def ious_by_name(rows: Sequence[Row]) -> dict[str, float]:
    """Each phrase's IoU under ``<scene>_<ann>_<key>``, the name that users of this family know;
    both numbers have three digits.

    Where several objects of a scan share an annotation's number, their phrases would overwrite each
    other: theirs is ``<scene>_<object>_<ann>_<key>``.
    """
    count = Counter((row.scene_id, row.ann_id, row.key) for row in rows)
    named = {}
    for row in rows:
        is_shared = count[row.scene_id, row.ann_id, row.key] > 1
        middle = (row.object_id,) if is_shared and row.object_id else ()
        named["_".join((row.scene_id, *middle, row.ann_id.zfill(3), row.key.zfill(3)))] = row.iou
    return named


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values) if values else float("nan")
