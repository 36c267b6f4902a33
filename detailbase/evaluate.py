"""Scores a trained network on descriptions of scans."""

from __future__ import annotations

import dataclasses
import logging
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from detailbase.command import find_checkpoint, read_options, results_folder
from detailbase.config import Config, DataConfig
from detailbase.data.batches import Batches, find_clouds
from detailbase.descriptions.references import Reference
from detailbase.descriptions.sentences import Sentences, word_encoder
from detailbase.descriptions.sources import prepared_folder, read_split
from detailbase.inference.answering import THRESHOLD, answer
from detailbase.inference.metrics import (
    Row,
    by_kind,
    by_scene,
    iou,
    ious_by_name,
    oracle_iou,
    summarize,
)
from detailbase.inference.tables import table
from detailbase.model.network import DetailBase
from detailbase.scans.clouds import NONE, load_cloud
from detailbase.training.state import RESOLVED, Checkpoint
from refer3d.native import backend
from refer3d.runs.config import to_mapping
from refer3d.runs.device import choose_device
from refer3d.runs.errors import InputError, run
from refer3d.runs.progress import Progress
from refer3d.runs.results import peak_memory_mib, provenance, save_results

log = logging.getLogger(__name__)

USUAL = ("detailrefer", "test")
OTHER = -1
UNNAMED = (NONE, 0, 1, 19)
"""What ScanRefer has no class for: what has none, walls, floors and other furniture."""
DESCRIPTION = "Scores a trained detailbase (--checkpoint) and writes results.json and ious.json."


def main(argv: Sequence[str]) -> None:
    """The command."""
    results = evaluate(read_options(argv, "eval.py", DESCRIPTION))
    sys.stdout.write(table(results) + "\n")


def evaluate(config: Config) -> dict[str, Any]:
    """Scores a checkpoint, writes ``results.json`` and ``ious.json``, returns the results.

    Those of other datasets or splits, of some scans, and with shuffled words have names of their
    own, as ``results_shuffled_words.json``.

    Raises:
        InputError: A file is absent or wrong, or the checkpoint is of other options.
    """
    start = time.perf_counter()
    torch.set_float32_matmul_precision(config.precision)
    device, checkpoint = choose_device(config.device), Checkpoint.read(find_checkpoint(config))
    dataset, split = config.data.dataset, config.data.split
    scans = prepared_folder(config.data)
    asked = with_kinds(read_split(config.data, dataset, split), dataset, scans)
    if config.shuffled_words:
        asked = [shuffled(reference, config.seed) for reference in asked]
    encoder = word_encoder(config.text, device)
    network = checkpoint.network(config, encoder, device)
    sentences = Sentences.encode(encoder, asked, device)
    rows = []
    with Progress("phrases", sum(len(one.phrases) for one in asked)) as progress:
        for row in score(network, asked, scans, sentences, config.data, device):
            rows.append(row)
            progress.advance()

    folder = checkpoint.path.parent
    is_in_run = (folder / RESOLVED).is_file() and not config.work_dir
    out = folder if is_in_run else results_folder(config)
    suffix = suffix_of(config)
    results = {
        "metrics": summarize(rows),
        "kinds": by_kind(rows),
        "scenes": by_scene(rows),
        "dataset": dataset,
        "split": split,
        "shuffled_words": config.shuffled_words,
        "threshold": THRESHOLD,
        "checkpoint": str(checkpoint.path),
        "seed": (checkpoint.learned_with or {}).get("seed"),
        "learned_with": checkpoint.learned_with,
        "encoder": {"name": sentences.encoder.name, "identity": sentences.encoder.identity},
        **provenance(backend("detailbase", device)),
        "device": str(device),
        "seconds": round(time.perf_counter() - start, 1),
        "peak_memory_mib": round(peak_memory_mib(), 1),
        "config": to_mapping(config),
    }
    save_results(out / f"ious{suffix}.json", ious_by_name(rows))
    save_results(out / f"results{suffix}.json", results)
    log.info("%s is written", out / f"results{suffix}.json")
    return results


def suffix_of(config: Config) -> str:
    """Of the files' names: nothing for DetailRefer's test split, so that no other overwrites it."""
    data = config.data
    parts = [] if (data.dataset, data.split) == USUAL else [data.dataset, data.split]
    parts += ["some_scans"] if data.scenes else []
    parts += ["shuffled_words"] if config.shuffled_words else []
    return "".join(f"_{part}" for part in parts)


@torch.no_grad()
def score(
    network: DetailBase,
    references: Sequence[Reference],
    scans: Path,
    sentences: Sentences,
    options: DataConfig,
    device: torch.device,
) -> Iterator[Row]:
    """Each phrase's IoU on the points of its scan.

    Raises:
        InputError: A scan is broken, or was prepared without its objects.
    """
    network.eval()
    options = dataclasses.replace(options, max_sentences=options.test_sentences)
    first = absent = 0
    for loaded in Batches(references, scans, options).loader():
        batch = loaded.to(device)
        for index, (probability, _) in enumerate(answer(network, batch, sentences)):
            sentence = batch.sentence_of_phrase[index]
            reference, target = batch.references[sentence], batch.point_targets[index]
            scene = batch.scene_of_sentence[sentence]
            begin, end = batch.point_starts[scene : scene + 2]
            low, high = batch.superpoint_starts[scene : scene + 2]
            is_absent = bool(batch.phrases[index].object_ids) and not target.any()
            if is_absent:
                absent += 1
                if (batch.instances[begin:end] == NONE).all():
                    raise InputError(
                        f"{scans}: {reference.scene_id} was prepared without objects, so nothing "
                        "can be scored there; prepare it again with --force once its segs.json "
                        "and aggregation.json are there"
                    )
            yield Row(
                *(reference.scene_id, reference.object_id, reference.ann_id),
                key=batch.phrases[index].key,
                sentence=first + sentence,
                iou=0.0 if is_absent else iou(probability >= THRESHOLD, target),
                oracle=0.0
                if is_absent
                else oracle_iou(batch.superpoints[begin:end] - low, high - low, target),
                num_words=len(reference.words),
                num_phrases=len(reference.phrases),
                kind=reference.kind,
            )
        first += len(batch.references)
    if absent:
        log.warning(
            "%d phrases name objects that have no points in their scans: they count as missed, "
            "as in the published evaluation",
            absent,
        )


def with_kinds(references: Sequence[Reference], dataset: str, scans: Path) -> list[Reference]:
    """Says of each description what it is scored among.

    ScanRefer's (Chen et al. 2020) are unique where no other described object of the scan is of the
    class, or multiple; all that is of none of its 17 named classes is of one other. Those of
    Multi3DRefer have their ``eval_type``.
    """
    if dataset != "scanrefer":
        return list(references)
    clouds = find_clouds(scans, {reference.scene_id for reference in references})
    classes = {scene_id: classes_of_objects(path) for scene_id, path in clouds.items()}
    class_of = {
        (one.scene_id, one.object_id): classes[one.scene_id].get(int(one.object_id), OTHER)
        for one in references
    }
    alike = Counter((scene_id, known) for (scene_id, _), known in class_of.items())

    def kind(one: Reference) -> str:
        known = class_of[one.scene_id, one.object_id]
        return "multiple" if alike[one.scene_id, known] > 1 else "unique"

    return [dataclasses.replace(one, kind=kind(one)) for one in references]


def classes_of_objects(path: Path) -> dict[int, int]:
    """Each object's class in a prepared scan, that of most of its points, or ``OTHER``."""
    cloud = load_cloud(path)
    classes = {
        int(index): int(cloud.semantic[cloud.instances == index].mode().values)
        for index in cloud.instances.unique()
        if index >= 0
    }
    return {index: OTHER if known in UNNAMED else known for index, known in classes.items()}


def shuffled(reference: Reference, seed: int) -> Reference:
    """The same description with its words in another order; phrases stay where they are."""
    words = list(reference.words)
    name = f"{seed} {reference.scene_id} {reference.object_id} {reference.ann_id}"
    random.Random(name).shuffle(words)
    return dataclasses.replace(reference, words=tuple(words))


if __name__ == "__main__":
    run(main)
