"""Scores a trained network and writes results.json."""

from __future__ import annotations

import dataclasses
import logging
import random
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from detailbase.answering import THRESHOLD, answer, load
from detailbase.command import (
    at_test,
    choose_device,
    prepared_folder,
    read_options,
    references_of,
)
from detailbase.config import Config
from detailbase.data.clouds import load_cloud
from detailbase.data.dataset import Batches, find_clouds
from detailbase.data.references import Reference
from detailbase.metrics import Row, iou, summarise
from detailbase.model.network import DetailBase
from detailbase.sentences import Sentences
from native import backend
from runs.config import to_mapping
from runs.errors import InputError
from runs.progress import Progress
from runs.results import peak_memory_mib, provenance, save_results

log = logging.getLogger(__name__)

DESCRIPTION = "Scores a trained detailbase (--checkpoint) and writes results.json and ious.json."

PUBLISHED = {
    "detailrefer": {
        "val": (("DetailBase", 0.568),),
        "test": (("DetailBase", 0.557), ("3D-STMN, adapted", 0.525)),
    },
    "scanrefer": {
        "val": (
            *(("TGNN", 0.288), ("3D-STMN", 0.395), ("SegPoint", 0.417), ("RG-SAN", 0.446)),
            *(("MDIN", 0.483), ("IPDN", 0.502), ("HCF-RES", 0.505), ("BQNet", 0.514)),
        )
    },
}
"""mIoU in the papers, on ScanNet."""


def main(argv: Sequence[str]) -> None:
    """The command."""
    config = read_options(argv, "eval.py", DESCRIPTION)
    if not config.checkpoint:
        raise InputError("--checkpoint: expected a file, got nothing; add --checkpoint best.pth")
    evaluate(config)


def evaluate(config: Config) -> dict[str, float]:
    """Scores, writes the results and prints the table.

    Raises:
        InputError: A file is absent or wrong.
    """
    begin = time.perf_counter()
    device = choose_device(config.train.device)
    dataset, split = config.data.dataset, config.data.split
    scans = prepared_folder(config)
    asked = with_kinds(references_of(config, dataset, split), dataset, scans)
    if config.shuffled_words:
        asked = [shuffled(reference, config.seed) for reference in asked]
    sentences = Sentences.encode(config.text, asked, device)
    model = load(config, sentences.dim, device)
    with Progress("scans", len(Batches(asked, scans, at_test(config).data))) as progress:
        rows = list(score(model, asked, scans, sentences, config, device, progress))
    metrics = summarise(rows)
    out = Path(config.work_dir) if config.work_dir else Path(config.checkpoint).parent
    save_results(out / "ious.json", {row.name: row.iou for row in rows})
    results = {
        "metrics": metrics,
        "dataset": dataset,
        "split": split,
        "shuffled_words": config.shuffled_words,
        "seed": config.seed,
        "encoder": sentences.encoder,
        "threshold": THRESHOLD,
        "seconds": round(time.perf_counter() - begin, 1),
        "peak_mib": round(peak_memory_mib(), 1),
        **provenance(backend("detailbase")),
        "config": to_mapping(config),
    }
    save_results(out / "results.json", results)
    log.info("%s and ious.json are written", out / "results.json")
    sys.stdout.write(table(metrics, dataset, split))
    return metrics


@torch.no_grad()
def score(
    model: DetailBase,
    references: Sequence[Reference],
    scans: Path,
    sentences: Sentences,
    config: Config,
    device: torch.device,
    progress: Progress | None = None,
) -> Iterator[Row]:
    """Each phrase's IoU on the points of its scan."""
    model.eval()
    for loaded in Batches(references, scans, at_test(config).data).loader():
        batch = loaded.to(device)
        answers = answer(model, batch, sentences)
        for index, (probability, _) in enumerate(answers):
            reference = batch.references[batch.sentence_of_phrase[index]]
            phrase, target = batch.phrases[index], batch.point_targets[index]
            scan = batch.scene_of_sentence[batch.sentence_of_phrase[index]]
            begin, end = batch.point_starts[scan : scan + 2]
            superpoints = batch.superpoints[begin:end] - batch.superpoint_starts[scan]
            yield Row(
                *(reference.scene_id, reference.ann_id, phrase.key),
                iou=iou(probability >= THRESHOLD, target),
                oracle=iou(batch.targets[index][superpoints] > 0, target),
                num_words=len(reference.words),
                num_phrases=len(reference.phrases),
                kind=reference.kind,
            )
        if progress is not None:
            progress.advance()


def with_kinds(references: Sequence[Reference], dataset: str, scans: Path) -> list[Reference]:
    """Says of each description what it is scored among.

    ScanRefer's are unique, where the scan has one object of the class, or multiple; those of
    Multi3DRefer have their ``eval_type``.
    """
    if dataset != "scanrefer":
        return list(references)
    found = []
    clouds = find_clouds(scans, {reference.scene_id for reference in references})
    kinds = {scene_id: _classes(path) for scene_id, path in clouds.items()}
    for reference in references:
        classes = kinds[reference.scene_id]
        own = classes.get(int(reference.object_id))
        is_unique = list(classes.values()).count(own) == 1
        found.append(dataclasses.replace(reference, kind="unique" if is_unique else "multiple"))
    return found


def _classes(path: Path) -> dict[int, int]:
    """Each object's class, that of most of its points."""
    cloud = load_cloud(path)
    return {
        int(index): int(cloud.semantic[cloud.instances == index].mode().values)
        for index in cloud.instances.unique()
        if index >= 0
    }


def shuffled(reference: Reference, seed: int) -> Reference:
    """The same description with its words in another order; keys stay where they are."""
    words = list(reference.words)
    random.Random(f"{seed} {reference.scene_id} {reference.ann_id}").shuffle(words)
    return dataclasses.replace(reference, words=tuple(words))


def table(metrics: dict[str, float], dataset: str, split: str) -> str:
    """The scores in a table, published ones below."""
    groups = [""] + [name.removesuffix("mIoU") for name in metrics if name.endswith("_mIoU")]
    lines = [
        f"{dataset + ' ' + split:24}{'mIoU':>8}{'@0.25':>8}{'@0.5':>8}{'smIoU':>8}{'phrases':>9}"
    ]
    for prefix in groups:
        values = [metrics[f"{prefix}{key}"] for key in ("mIoU", "acc@0.25", "acc@0.5", "smIoU")]
        label = prefix.rstrip("_") or "all"
        numbers = "".join(f"{value:8.3f}" for value in values)
        lines.append(f"{label:24}{numbers}{metrics[f'{prefix}phrases']:9.0f}")
    lines.append(f"{'best by superpoints':24}{metrics['oracle']:8.3f}")
    published = PUBLISHED.get(dataset, {}).get(split, ())
    if published:
        lines.append("published, on ScanNet; not comparable with other scans:")
        lines += [f"  {name:22}{value:8.3f}" for name, value in published]
    return "\n".join(lines) + "\n"
