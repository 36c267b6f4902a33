"""Scores a trained scene on its test views."""

from __future__ import annotations

import logging
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from refer3d.native import backend
from refer3d.native.start import start_program
from refer3d.runs.device import choose_device
from refer3d.runs.errors import InputError, run
from refer3d.runs.folder import TIMINGS
from refer3d.runs.options import to_mapping
from refer3d.runs.results import Stopwatch, peak_memory_mib, provenance, save_results
from refersplat.command import read_options, run_of
from refersplat.config import Config
from refersplat.data import Scene, load_scene
from refersplat.inference.open_vocabulary import score_queries
from refersplat.inference.questions import question_lines, read_questions, score_questions
from refersplat.inference.report import draw_report, write_report
from refersplat.inference.samples import Sample, evaluate_views
from refersplat.inference.trained_scene import TrainedScene
from refersplat.metrics import METRICS, Overlap, generalized, mean, mean_scores
from refersplat.referring.state import refuse_trained_views, trained_views
from refersplat.rgb.fit import evaluate_rgb, protocol
from refersplat.rgb.poses import POSES_FILE, with_refined_poses
from refersplat.splats.checkpoints import trained_gaussians
from refersplat.splats.gaussians import Gaussians

log = logging.getLogger(__name__)

RESULTS = "results{}.json"
REPORT, PAGE = "report{}.png", "report{}.html"
QUESTIONS = "questions{}.json"
"""Names of the files; the braces hold the name of a scene that is not the run's own."""


def main(argv: Sequence[str]) -> None:
    """Runs the command ``eval.py``."""
    report(read_options(argv, "eval"))


def report(config: Config) -> None:
    """Scores the run and prints its table."""
    if config.score.questions:
        sys.stdout.write("\n".join(question_lines(evaluate_questions(config))) + "\n")
        return
    results = evaluate(config)
    lines = table(results) if "cases" in results else colors_table(results)
    sys.stdout.write(lines + "\n")


def evaluate(config: Config) -> dict[str, Any]:
    """Scores the run, writes ``results.json`` and the reports, returns the results.

    Where no test view has a sentence, it scores the colours alone.

    Raises:
        InputError: The run is not trained, or was trained on a test view, or its scene has none.
    """
    start_program("refersplat")
    out = Path(config.model_path)
    scene = load_scene(config.data)
    if not scene.test:
        raise InputError(
            f"{scene.path}: there are no test views ({scene.split}), so there is nothing to score; "
            "train with --eval"
        )
    refuse_trained_views(out, scene, "restore the split, or train into another folder")
    if all(item.is_nothing for view in scene.test for item in view.objects):
        return evaluate_colors(config, scene)
    trained = TrainedScene.load(out, config.device, config.text, config.train.threshold)
    watch = Stopwatch(out / TIMINGS)
    with watch.stage("evaluate"):
        samples, overlaps = evaluate_views(trained, scene.test, lambda o: o.sentences, amodal=True)
        of_category = training_sentences(scene)
        training, _ = evaluate_views(
            trained,
            scene.test,
            lambda o: () if o.is_nothing else of_category.get(o.category, ()),
        )
        photos, how = score_photos(config, scene, trained.gaussians)
        results = {
            "metrics": metrics(samples, training) | generalized(overlaps) | photos,
            **break_down(samples),
            "fitted": how,
            "threshold": trained.threshold,
            "threshold_of_the_field": trained.field_threshold,
            "threshold_chosen_by": trained.chosen_by,
            "groups": trained.groups,
            "counts": counts(scene, samples, overlaps, trained),
            "encoder": {"name": trained.encoder.name, "identity": trained.encoder.identity},
            **conditions(config, trained.gaussians),
        }
        if scene.dataset.is_open_vocabulary:
            scores, queries = score_queries(trained, scene.test)
            results["metrics"] |= scores
            results["queries"] = [query._asdict() for query in queries]
        draw_report(result_file(config, REPORT), samples, trained)
    results["stages"] = watch.stages
    results["peak_memory_mib"] = max(
        peak_memory_mib(), *(stage["peak_mib"] for stage in watch.stages.values())
    )
    write_report(result_file(config, PAGE), samples, trained, results, out)
    return write(config, RESULTS, results)


def evaluate_questions(config: Config) -> dict[str, Any]:
    """Scores the questions of a file and writes ``questions.json``.

    Raises:
        InputError: The run is not trained, or the file is not of that form.
    """
    start_program("refersplat")
    out = Path(config.model_path)
    scene = with_refined_poses(load_scene(config.data), out)
    questions = read_questions(Path(config.score.questions).expanduser(), scene)
    trained = TrainedScene.load(out, config.device, config.text, config.train.threshold)
    asked = [view for view in scene.views if any(view.name in q.targets for q in questions)]
    if seen := trained_views(out, asked):
        log.warning("%d of the %d views of the questions were trained on", len(seen), len(asked))
    scores = score_questions(trained, scene, questions) | conditions(config, trained.gaussians)
    return write(config, QUESTIONS, scores)


def evaluate_colors(config: Config, scene: Scene) -> dict[str, Any]:
    """Scores PSNR, SSIM and L1 alone, and writes ``results.json``."""
    gaussians = trained_gaussians(Path(config.model_path)).to(choose_device(config.device))
    log.warning("no test view has a sentence: only colours are scored")
    photos, how = score_photos(config, scene, gaussians)
    results = {"metrics": photos, "fitted": how, **conditions(config, gaussians)}
    return write(config, RESULTS, results)


def score_photos(
    config: Config, scene: Scene, gaussians: Gaussians
) -> tuple[dict[str, float], str]:
    """Scores colours, and says how the ``_fitted`` scores are made.

    Poses of test views are fitted where the run has refined those of the training views.
    """
    has_motions = Path(config.model_path, POSES_FILE).exists()
    extent = scene.extent if has_motions else None
    return evaluate_rgb(gaussians, scene.test, extent), protocol(extent)


def write(config: Config, name: str, results: dict[str, Any]) -> dict[str, Any]:
    """Writes results into the run's folder and returns them."""
    path = result_file(config, name)
    save_results(path, results)
    log.info("%s is written", path)
    return results


def result_file(config: Config, name: str) -> Path:
    """Path of a file of results, with the scene's name in it if it is not the run's own."""
    run = run_of(config)
    trained_on, scene = (Path(c.data.scene).name for c in (run.config(), config))
    return run.path / name.format("" if scene == trained_on else f"_{scene}")


def conditions(config: Config, gaussians: Gaussians) -> dict[str, Any]:
    """Returns the options and versions that the numbers depend on."""
    return {
        "seed": config.seed,
        "setting": config.train.setting,
        **provenance(backend("refersplat", gaussians.means.device)),
        "config": to_mapping(config),
    }


def training_sentences(scene: Scene) -> dict[str | None, list[str]]:
    """Returns the training views' sentences about each category, every one once.

    A category of which some view has two objects is left out: it does not name one object.
    """
    sentences: dict[str | None, dict[str, None]] = defaultdict(dict)
    for view in scene.train:
        for item in view.objects:
            if item.category is not None and not item.is_nothing:
                sentences[item.category].update(dict.fromkeys(item.sentences))
    for view in (*scene.train, *scene.test):
        categories = Counter(item.category for item in view.objects if not item.is_nothing)
        for category, count in categories.items():
            if count > 1:
                sentences.pop(category, None)
    return {category: list(texts) for category, texts in sentences.items()}


def metrics(samples: Sequence[Sample], training: Sequence[Sample]) -> dict[str, float | None]:
    """Computes the numbers of the run, each a mean over samples.

    Args:
        samples: Test views' own sentences.
        training: Training sentences about the same objects, in the same views.
    """
    amodal = [sample.amodal_iou for sample in samples if sample.amodal_iou is not None]
    lerf = mean_scores(sample.scores for sample in lerf_samples(samples))
    return {
        **mean_scores(sample.scores for sample in samples),
        "mIoU_threshold_0.5": mean([sample.iou_at_half for sample in samples]),
        "mIoU_best_threshold": best_threshold_iou(samples),
        "mIoU_training_sentences": mean([s.iou for s in training]) if training else None,
        "mIoU_amodal": mean(amodal) if amodal else None,
        **{f"lerf_{name}": value for name, value in lerf.items()},
    }


def best_threshold_iou(samples: Sequence[Sample]) -> float:
    """Mean IoU with the threshold of each sentence that suits it best on the test views.

    An upper bound: it uses the true masks.
    """
    curves: dict[tuple[str, str], list[Tensor]] = defaultdict(list)
    for sample in samples:
        curves[sample.category, sample.sentence].append(sample.curve)
    total = sum(float(torch.stack(group).sum(dim=0).max()) for group in curves.values())
    return total / len(samples)


def lerf_samples(samples: Sequence[Sample]) -> list[Sample]:
    """Selects the samples that the published evaluation of Ref-LERF scores.

    It names masks by view and category, so the last of several sentences remains, and skips empty
    true masks. The threshold stays ours.
    """
    last = {(sample.view.name, sample.category): sample for sample in samples}
    return [sample for sample in last.values() if not sample.is_empty]


def break_down(samples: Sequence[Sample]) -> dict[str, Any]:
    """Tabulates the scores per object, per sentence, per view and per sample."""
    keys: dict[str, Callable[[Sample], str]] = {
        "per_object": lambda sample: sample.category,
        "per_sentence": lambda sample: f"{sample.category}: {sample.sentence}",
        "per_view": lambda sample: sample.view.name,
    }
    tables: dict[str, Any] = {}
    for name, key in keys.items():
        groups: dict[str, list[dict[str, float]]] = defaultdict(list)
        for sample in samples:
            groups[key(sample)].append(sample.scores)
        tables[name] = {
            title: mean_scores(scores) | {"cases": len(scores)}
            for title, scores in sorted(groups.items())
        }
    tables["cases"] = [
        {
            "view": sample.view.name,
            "object": sample.category,
            "sentence": sample.sentence,
            "group": _group(sample.groups),
            "IoU": round(sample.iou, 4),
            "IoU_threshold_0.5": round(sample.iou_at_half, 4),
            "IoU_amodal": None if sample.amodal_iou is None else round(sample.amodal_iou, 4),
            "is_empty": sample.is_empty,
        }
        for sample in samples
    ]
    return tables


def _group(groups: tuple[int, ...] | None) -> int | list[int] | None:
    """One group as a number, several or none as a list, and null for the field."""
    return groups[0] if groups and len(groups) == 1 else None if groups is None else list(groups)


def counts(
    scene: Scene, samples: Sequence[Sample], overlaps: Sequence[Overlap], trained: TrainedScene
) -> dict[str, int]:
    """Counts the views, objects, sentences and samples behind the scores."""
    nothing = sum(len(o.sentences) for v in scene.test for o in v.objects if o.is_nothing)
    return {
        "training_views": len(scene.train),
        "test_views": len({sample.view.name for sample in samples}),
        "objects": len({sample.category for sample in samples}),
        "sentences": len({sample.sentence for sample in samples}),
        "cases": len(samples),
        "cases_without_object": sum(sample.is_empty for sample in samples),
        "sentences_in_views": len(overlaps),
        "sentences_that_mean_nothing": nothing,
        "gaussians": trained.gaussians.count,
    }


def colors_table(results: dict[str, Any]) -> str:
    """Formats the colours' scores for the terminal."""
    lines = [
        f"{name.upper().replace('_FITTED', ', fitted'):<12} {value:7.3f}"
        for name, value in results["metrics"].items()
    ]
    return "\n".join([*lines, f"fitted: {results['fitted']}"])


def table(results: dict[str, Any]) -> str:
    """Formats the results for the terminal."""
    numbers, per_object = results["metrics"], results["per_object"]
    width = max(18, *map(len, per_object))
    columns = {name: max(6, len(name.removeprefix("acc"))) for name in METRICS if name in numbers}
    cells = " ".join(f"{name.removeprefix('acc'):>{size}}" for name, size in columns.items())
    lines = [f"{'object':<{width}}  {cells}  samples"]

    def row(name: str, scores: dict[str, float], count: int) -> str:
        cells = " ".join(f"{scores[column]:{size}.3f}" for column, size in columns.items())
        return f"{name:<{width}}  {cells}  {count:7d}"

    lines += [row(name, scores, scores["cases"]) for name, scores in per_object.items()]
    lines += ["-" * len(lines[0]), row("all", numbers, results["counts"]["cases"]), ""]
    for label, key, note in (
        ("training sentences", "mIoU_training_sentences", ""),
        ("amodal", "mIoU_amodal", "against whole silhouettes"),
        ("LERF convention", "lerf_mIoU", "one sentence per view and category, no hidden objects"),
        ("threshold 0.5", "mIoU_threshold_0.5", ""),
        ("gIoU", "gIoU", "all objects of a sentence together, and sentences that mean nothing"),
        ("cIoU", "cIoU", "the same, summed over pixels"),
        ("N-acc", "N-acc", "empty masks where a sentence means nothing visible"),
        ("localisation", "loc_acc", "maximum of the smoothed map in a box of the object"),
        ("3D mIoU", "3d_mIoU", "Gaussians selected once and rendered alone"),
        ("  opacity 0.5", "3d_mIoU_opacity_0.5", ""),
        ("3D acc@0.25", "3d_acc@0.25", ""),
        ("3D acc@0.5", "3d_acc@0.5", ""),
        ("best thresholds", "mIoU_best_threshold", "an upper bound: the best of each sentence"),
        ("PSNR", "psnr", "dB"),
        ("PSNR, fitted", "psnr_fitted", f"dB, {results['fitted']}"),
        ("SSIM", "ssim", ""),
    ):
        if numbers.get(key) is not None:
            lines.append(f"{label:<{width}}  {numbers[key]:6.3f}  {note}".rstrip())
    threshold = f"{results['threshold']:6.2f}  {results['threshold_chosen_by']}"
    lines.append(f"{'threshold':<{width}}  {threshold}")
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
