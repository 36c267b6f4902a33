"""Scores a run on its test views."""

from __future__ import annotations

import logging
import sys
from collections import defaultdict
from collections.abc import Sequence
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
from refersplat.inference.report import draw_report
from refersplat.inference.samples import Sample, answer_all
from refersplat.inference.trained_scene import TrainedScene
from refersplat.metrics import summarize
from refersplat.rgb.train import evaluate_rgb
from refersplat.splats.checkpoints import trained_gaussians
from refersplat.splats.gaussians import Gaussians

log = logging.getLogger(__name__)

RESULTS = "results{}.json"
REPORT = "report{}.png"
"""With nothing in between, or the name of a scene that is not the run's own."""


def main(argv: Sequence[str]) -> None:
    """The command."""
    report(read_options(argv, "eval"))


def report(config: Config) -> None:
    """Scores the run and prints its table."""
    results = evaluate(config)
    lines = table(results) if "cases" in results else colors_table(results)
    sys.stdout.write(lines + "\n")


def evaluate(config: Config) -> dict[str, Any]:
    """Scores the run, writes ``results.json`` and ``report.png``, returns the results.

    Where no test view has a sentence, the colours alone are scored.

    Raises:
        InputError: The run is not trained, or its scene has no test views.
    """
    start_program("refersplat")
    out = Path(config.model_path)
    scene = load_scene(config.data)
    if not scene.test:
        raise InputError(
            f"{scene.path}: there are no test views ({scene.split}), so there is nothing to score; "
            "train with --eval"
        )
    if not any(view.objects for view in scene.test):
        return evaluate_colors(config, scene)
    trained = TrainedScene.load(out, config.device, config.text, config.train.threshold)
    watch = Stopwatch(out / TIMINGS)
    results_file, report_file = (
        out / name.format(other_scene(config)) for name in (RESULTS, REPORT)
    )
    with watch.stage("evaluate"):
        cases = list(answer_all(trained, scene.test, lambda item: item.sentences, amodal=True))
        known = training_sentences(scene)
        taught = list(answer_all(trained, scene.test, lambda o: known.get(o.category, ())))
        photos = evaluate_rgb(trained.gaussians, scene.test)
        results = {
            "metrics": metrics(cases, taught) | photos,
            **break_down(cases),
            "threshold": trained.threshold,
            "threshold_of_the_field": trained.field_threshold,
            "threshold_chosen_by": trained.chosen_by,
            "counts": counts(scene, cases, trained),
            "encoder": {"name": trained.encoder.name, "identity": trained.encoder.identity},
            **about(config, trained.gaussians),
        }
        draw_report(report_file, cases, trained)
    results["stages"] = watch.stages
    results["peak_memory_mib"] = max(
        peak_memory_mib(), *(stage["peak_mib"] for stage in watch.stages.values())
    )
    save_results(results_file, results)
    log.info("%s and %s are written", results_file, report_file)
    return results


def evaluate_colors(config: Config, scene: Scene) -> dict[str, Any]:
    """PSNR, SSIM and L1 of a run whose test views have no sentences; writes ``results.json``."""
    out = Path(config.model_path)
    gaussians = trained_gaussians(out).to(choose_device(config.device))
    log.warning("no test view has a sentence: only colours are scored")
    results = {"metrics": evaluate_rgb(gaussians, scene.test), **about(config, gaussians)}
    path = out / RESULTS.format(other_scene(config))
    save_results(path, results)
    log.info("%s is written", path)
    return results


def other_scene(config: Config) -> str:
    """What is added to the files' names, so that another scene's scores overwrite nothing."""
    own = Path(run_of(config).config().data.scene).name
    asked = Path(config.data.scene).name
    return "" if asked == own else f"_{asked}"


def about(config: Config, gaussians: Gaussians) -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "seed": config.seed,
        "setting": config.train.setting,
        **provenance(backend("refersplat", gaussians.means.device)),
        "config": to_mapping(config),
    }


def training_sentences(scene: Scene) -> dict[str | None, list[str]]:
    """What the training views say about each category, every sentence once.

    A category of which some view has two objects is left out: it tells no object.
    """
    known: dict[str | None, dict[str, None]] = defaultdict(dict)
    for view in scene.train:
        for item in view.objects:
            if item.category is not None:
                known[item.category].update(dict.fromkeys(item.sentences))
    for view in (*scene.train, *scene.test):
        categories = [item.category for item in view.objects]
        for category in categories:
            if categories.count(category) > 1:
                known.pop(category, None)
    return {category: list(sentences) for category, sentences in known.items()}


def metrics(cases: Sequence[Sample], taught: Sequence[Sample]) -> dict[str, float | None]:
    """The numbers of the run; each is a mean over (view, object, sentence)."""
    amodal = [case.amodal_iou for case in cases if case.amodal_iou is not None]
    convention = {
        f"lerf_{name}": value
        for name, value in summarize([case.iou for case in lerf_cases(cases)]).items()
    }
    return {
        **summarize([case.iou for case in cases]),
        "mIoU_threshold_0.5": summarize([case.iou_at_half for case in cases])["mIoU"],
        "mIoU_best_threshold": best_threshold_iou(cases),
        "mIoU_training_sentences": summarize([case.iou for case in taught])["mIoU"],
        "mIoU_amodal": summarize(amodal)["mIoU"] if amodal else None,
        **convention,
    }


def best_threshold_iou(cases: Sequence[Sample]) -> float:
    """Mean IoU if each sentence had the threshold that suits it best on the test views.

    An upper bound: it looks at the truth.
    """
    curves: dict[tuple[str, str], list[Tensor]] = defaultdict(list)
    for case in cases:
        curves[case.category, case.sentence].append(case.curve)
    total = sum(float(torch.stack(own).sum(dim=0).max()) for own in curves.values())
    return total / len(cases)


def lerf_cases(cases: Sequence[Sample]) -> list[Sample]:
    """What the published evaluation of Ref-LERF scores: one case per view and category.

    Its masks are named by category, so of several sentences the last one's is left; empty true
    masks are passed over. The threshold stays ours.
    """
    last = {(case.view.name, case.category): case for case in cases}
    return [case for case in last.values() if not case.is_empty]


def break_down(cases: Sequence[Sample]) -> dict[str, Any]:
    """Scores per object, per sentence and per view, and every single case."""
    groups: dict[str, dict[str, list[float]]] = {
        name: defaultdict(list) for name in ("per_object", "per_sentence", "per_view")
    }
    for case in cases:
        groups["per_object"][case.category].append(case.iou)
        groups["per_sentence"][f"{case.category}: {case.sentence}"].append(case.iou)
        groups["per_view"][case.view.name].append(case.iou)
    tables: dict[str, Any] = {
        name: {key: summarize(ious) | {"cases": len(ious)} for key, ious in sorted(group.items())}
        for name, group in groups.items()
    }
    tables["cases"] = [
        {
            "view": case.view.name,
            "object": case.category,
            "sentence": case.sentence,
            "group": case.group,
            "IoU": round(case.iou, 4),
            "IoU_threshold_0.5": round(case.iou_at_half, 4),
            "IoU_amodal": None if case.amodal_iou is None else round(case.amodal_iou, 4),
            "is_empty": case.is_empty,
        }
        for case in cases
    ]
    return tables


def counts(scene: Scene, cases: Sequence[Sample], trained: TrainedScene) -> dict[str, int]:
    """How much the scores rest on."""
    return {
        "training_views": len(scene.train),
        "test_views": len({case.view.name for case in cases}),
        "objects": len({case.category for case in cases}),
        "sentences": len({case.sentence for case in cases}),
        "cases": len(cases),
        "cases_without_object": sum(case.is_empty for case in cases),
        "gaussians": trained.gaussians.count,
    }


def colors_table(results: dict[str, Any]) -> str:
    """The colours' scores for people."""
    return "\n".join(
        f"{name.upper():<5} {value:7.3f}" for name, value in results["metrics"].items()
    )


def table(results: dict[str, Any]) -> str:
    """The results for people."""
    numbers, per_object = results["metrics"], results["per_object"]
    width = max(16, *map(len, per_object))
    lines = [f"{'object':<{width}}  {'mIoU':>6} {'@0.25':>6} {'@0.5':>6}  cases"]

    def row(name: str, scores: dict[str, float], cases: int) -> str:
        cells = " ".join(f"{scores[key]:6.3f}" for key in ("mIoU", "acc@0.25", "acc@0.5"))
        return f"{name:<{width}}  {cells}  {cases:5d}"

    lines += [row(name, scores, scores["cases"]) for name, scores in per_object.items()]
    lines += ["-" * len(lines[0]), row("all", numbers, results["counts"]["cases"]), ""]
    extra = [
        ("training sentences", "mIoU_training_sentences", ""),
        ("through view", "mIoU_amodal", "against whole silhouettes"),
        (
            "LERF convention",
            "lerf_mIoU",
            "one sentence per view and category, hidden ones left out",
        ),
        ("threshold 0.5", "mIoU_threshold_0.5", ""),
        ("best thresholds", "mIoU_best_threshold", "an upper bound: each sentence's own best"),
        ("PSNR", "psnr", "dB"),
        ("SSIM", "ssim", ""),
    ]
    for label, key, note in extra:
        if numbers.get(key) is not None:
            lines.append(f"{label:<{width}}  {numbers[key]:6.3f}  {note}".rstrip())
    threshold = f"{results['threshold']:6.2f}  {results['threshold_chosen_by']}"
    lines.append(f"{'threshold':<{width}}  {threshold}")
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
