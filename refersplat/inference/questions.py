"""Scores of questions that mean one object, several or none, by kind of question."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from refer3d.runs.errors import InputError
from refer3d.runs.records import as_kind, first_few, read_json, short, take
from refersplat.data import Scene
from refersplat.inference.trained_scene import TrainedScene
from refersplat.metrics import Overlap, generalized, mean


@dataclass(frozen=True)
class Question:
    """A sentence and what it means in some views."""

    sentence: str
    kind: str
    targets: dict[str, tuple[str, ...]]
    """Categories of the objects that it means, by the view's name; () where it means none."""


def read_questions(path: Path | str, scene: Scene) -> list[Question]:
    """Reads a list of objects with ``sentence``, ``kind`` and ``targets``.

    Raises:
        InputError: The file is absent, empty or of another form, or a view or category is not the
            scene's.
    """
    names = {view.name for view in scene.views}
    categories = {item.category for view in scene.views for item in view.objects if item.category}
    records = read_json(path, list, "name a file of questions")
    if not records:
        raise InputError(f"{path}: expected at least one question, got none; name another file")
    questions = []
    for index, record in enumerate(records):
        where = f"{path}: question {index + 1}"
        as_kind(record, dict, where)
        targets: dict[str, tuple[str, ...]] = {}
        for name, items in take(record, "targets", dict, where).items():
            if name not in names:
                raise _foreign(where, scene, "view", names, name)
            targets[name] = tuple(as_kind(items, list, f"{where}: {name}"))
            for category in targets[name]:
                if as_kind(category, str, f"{where}: {name}") not in categories:
                    raise _foreign(f"{where}: {name}", scene, "category", categories, category)
        sentence, kind = (take(record, key, str, where) for key in ("sentence", "kind"))
        questions.append(Question(sentence, kind, targets))
    return questions


def _foreign(where: str, scene: Scene, what: str, known: set[str], got: str) -> InputError:
    """The error about a name that the scene lacks."""
    shown = first_few(sorted(known), 8) or "it has none"
    return InputError(
        f"{where}: expected a {what} of {scene.path} ({shown}), got {short(got)}; name the "
        "questions of this scene, or their scene with -s"
    )


@torch.inference_mode()
def score_questions(
    trained: TrainedScene, scene: Scene, questions: Sequence[Question]
) -> dict[str, Any]:
    """Asks every question in its views.

    Returns:
        ``kinds``: mean IoU of each kind's questions, a question's being the mean over its views;
        ``total``: their mean; the metrics of ``generalized`` over (question, view) pairs;
        ``questions``: each question's score and trace.

    Raises:
        InputError: What every question means is hidden in all of its views.
    """
    views = {view.name: view for view in scene.views}
    rows, kinds = [], {}
    overlaps: list[Overlap] = []
    for question in questions:
        start, trace = len(overlaps), ()
        for name, targets in question.targets.items():
            truth = _union(views[name].objects, targets, views[name].camera)
            if targets and not truth.any():
                continue  # hidden here
            answer = trained.find(question.sentence, views[name].camera)
            overlaps.append(Overlap.of(answer.mask.cpu(), truth))
            trace = answer.trace
        if scores := [overlap.score for overlap in overlaps[start:]]:
            kinds.setdefault(question.kind, []).append(mean(scores))
            rows.append({"sentence": question.sentence, "kind": question.kind,
                         "IoU": round(mean(scores), 4), "trace": list(trace)})  # fmt: skip
    if not rows:
        raise InputError(
            f"--questions: expected one that can be scored, got {len(questions)} whose objects are "
            "hidden in all of their views; name others"
        )
    means = {kind: mean(values) for kind, values in kinds.items()}
    return {
        "kinds": means,
        "total": mean(list(means.values())),
        **generalized(overlaps),
        "counts": {kind: len(values) for kind, values in kinds.items()},
        "questions": rows,
    }


def question_lines(scores: dict[str, Any]) -> Iterator[str]:
    """Yields the lines of the table by kind."""
    yield f"{'kind':<16}  {'mIoU':>6}  questions"
    for kind, value in scores["kinds"].items():
        yield f"{kind:<16}  {value:6.3f}  {scores['counts'][kind]:9d}"
    yield "-" * 35
    yield f"{'mean of kinds':<16}  {scores['total']:6.3f}  {sum(scores['counts'].values()):9d}"
    for name in ("gIoU", "cIoU", "N-acc"):
        if scores[name] is not None:
            yield f"{name:<16}  {scores[name]:6.3f}"


def _union(objects: Sequence[Any], categories: Sequence[str], camera: Any) -> Tensor:
    """True pixels of all objects of some categories, [H, W] bool."""
    truth = torch.zeros(camera.height, camera.width, dtype=torch.bool)
    for item in objects:
        if item.category in categories:
            truth |= item.mask().cpu()
    return truth
