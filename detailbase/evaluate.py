"""Scores a trained network on descriptions of scans."""

from __future__ import annotations

import dataclasses
import logging
import random
import sys
import time
from collections.abc import Sequence
from typing import Any

from detailbase.command import find_checkpoint, read_options, results_folder
from detailbase.config import Config
from detailbase.data.batches import name_killed_workers
from detailbase.data.wording import head
from detailbase.descriptions.datasets import find_dataset, read_split
from detailbase.descriptions.references import Reference
from detailbase.descriptions.sentences import Sentences, word_encoder
from detailbase.inference.answering import THRESHOLD, score
from detailbase.inference.metrics import (
    METRICS,
    PhraseScores,
    by_kind,
    by_scene,
    calibration,
    ious_by_name,
    summarize,
)
from detailbase.model.checkpoint import Checkpoint
from detailbase.scans.clouds import prepared_folder
from refer3d.native import backend
from refer3d.native.start import start_program
from refer3d.page import Table, read_curves, write_page
from refer3d.runs.device import choose_device
from refer3d.runs.errors import run
from refer3d.runs.folder import RESOLVED
from refer3d.runs.options import to_mapping
from refer3d.runs.progress import Progress
from refer3d.runs.results import peak_memory_mib, provenance, save_results

log = logging.getLogger(__name__)

DEFAULT = ("detailrefer", "test")
REMARK = "published, on real ScanNet; not comparable with other data"


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    report(read_options(argv, "eval"))


def report(config: Config) -> None:
    """Scores a checkpoint and prints its table."""
    results = evaluate(config)
    sys.stdout.write(table(results) + "\n")


@name_killed_workers()
def evaluate(config: Config) -> dict[str, Any]:
    """Scores a checkpoint, writes ``results.json``, ``ious.json`` and ``report.html``, returns the
    results.

    The files of other datasets or splits, of some scans, and of shuffled words have a suffix, as
    ``results_shuffled_words.json``.

    Raises:
        InputError: A file is absent or wrong, or the checkpoint was trained with other options.
    """
    start = time.perf_counter()
    start_program("detailbase", precision=config.precision)
    device, checkpoint = choose_device(config.device), Checkpoint.read(find_checkpoint(config))
    dataset, split = config.data.dataset, config.data.split
    scans = prepared_folder(config.data)
    references = read_split(config.data, dataset, split)
    if add_kinds := find_dataset(dataset).with_kinds:
        references = add_kinds(references, scans)
    if config.shuffled_words:
        references = [shuffled(reference, config.seed) for reference in references]
    encoder = word_encoder(config.text, device)
    network = checkpoint.network(config, encoder, device)
    sentences = Sentences.encode(encoder, references, device)
    rows = []
    with Progress("phrases", sum(len(one.phrases) for one in references)) as progress:
        for row in score(network, references, scans, sentences, config.data, device):
            rows.append(row)
            progress.advance()

    folder, trained_with = checkpoint.path.parent, checkpoint.trained_with
    is_in_run = (folder / RESOLVED).is_file() and not config.work_dir
    out = folder if is_in_run else results_folder(config)
    suffix = suffix_of(config)
    results = {
        "metrics": summarize(rows),
        "kinds": by_kind(rows),
        "calibration": calibration(rows) | {"in_sample": is_in_sample(config, trained_with)},
        "scenes": by_scene(rows),
        "dataset": dataset,
        "split": split,
        "shuffled_words": config.shuffled_words,
        "threshold": THRESHOLD,
        "checkpoint": str(checkpoint.path),
        "seed": trained_with and trained_with.seed,
        "learned_with": trained_with and to_mapping(trained_with),
        "encoder": {"name": sentences.encoder.name, "identity": sentences.encoder.identity},
        **provenance(backend("detailbase", device)),
        "device": str(device),
        "seconds": round(time.perf_counter() - start, 1),
        "peak_memory_mib": round(peak_memory_mib(), 1),
        "config": to_mapping(config),
    }
    save_results(out / f"ious{suffix}.json", ious_by_name(rows))
    save_results(out / f"results{suffix}.json", results)
    title = f"{out.absolute().name}: {dataset} {split}"
    write_page(out / f"report{suffix}.html", title, tables(rows, results), results["config"],
               read_curves(folder))  # fmt: skip
    log.info("wrote %s", out / f"results{suffix}.json")
    return results


def tables(rows: Sequence[PhraseScores], results: dict[str, Any]) -> list[Table]:
    """The tables of the page: kinds and scans, and every phrase, the worst first."""
    columns = (*METRICS, "smIoU")
    groups = {"all": results["metrics"], **results["kinds"], **results["scenes"]}
    scores = [
        (name, *(group[column] for column in columns), group["phrases"])
        for name, group in groups.items()
    ]
    phrases = []
    for row in sorted(rows, key=lambda row: row.scores["mIoU"]):
        reference, words = row.reference, " ".join(row.reference.words)
        phrase = next(phrase for phrase in reference.phrases if phrase.key == row.key)
        name = head(reference, phrase) or words
        phrases.append((reference.scene_id, words, name, row.scores["mIoU"], row.confidence))
    heads = ("scan", "sentence", "phrase", "IoU", "score")
    return [Table("Scores", ("", *columns, "phrases"), scores), Table("Phrases", heads, phrases)]


def is_in_sample(config: Config, trained_with: Config | None) -> bool | None:
    """Tells whether the masks' scores were fitted to these phrases; None if it is not known.

    Training fits them to the IoUs of its validation split.
    """
    if trained_with is None:
        return None
    return (config.data.dataset, config.data.split) == (trained_with.data.dataset, "val")


def suffix_of(config: Config) -> str:
    """Returns the suffix of the files' names: empty for all of DetailRefer's test split, so that no
    other evaluation overwrites it.
    """
    data = config.data
    parts = [] if (data.dataset, data.split) == DEFAULT else [data.dataset, data.split]
    parts += ["some_scans"] if data.scenes else []
    parts += ["shuffled_words"] if config.shuffled_words else []
    return "".join(f"_{part}" for part in parts)


def shuffled(reference: Reference, seed: int) -> Reference:
    """Shuffles a description's words; its phrases keep their places."""
    words = list(reference.words)
    name = f"{seed} {reference.scene_id} {reference.object_id} {reference.ann_id}"
    random.Random(name).shuffle(words)
    return dataclasses.replace(reference, words=tuple(words))


def table(results: dict[str, Any]) -> str:
    """Formats the scores, and behind them those of the papers."""
    rows = [("all", results["metrics"]), *results["kinds"].items()]
    published = find_dataset(results["dataset"]).published.get(results["split"], ())
    title = f"{results['dataset']} {results['split']}"
    if results["shuffled_words"]:
        title += ", shuffled words"
    width = max(len(name) for name in [title, *(name for name, _ in (*rows, *published))])
    columns = (*METRICS, "smIoU")
    head = " ".join(f"{name:>8}" for name in columns)
    lines = [f"{title:<{width}}  {head}  phrases"]
    for name, scores in rows:
        cells = " ".join(f"{scores[column]:8.3f}" for column in columns)
        lines.append(f"{name:<{width}}  {cells}  {scores['phrases']:7d}")
    lines += [f"{name:<{width}}  {miou:8.3f}  {REMARK}" for name, miou in published]
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
