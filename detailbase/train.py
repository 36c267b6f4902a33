"""Trains detailbase on descriptions of scans."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from tqdm.contrib.logging import logging_redirect_tqdm

from detailbase.command import BEST, LAST, claim_folder, read_options
from detailbase.config import Config
from detailbase.data.batches import Batches, name_killed_workers
from detailbase.descriptions.datasets import read_split
from detailbase.descriptions.references import Reference
from detailbase.descriptions.sentences import Sentences, word_encoder
from detailbase.inference.answering import calibrate, score
from detailbase.inference.metrics import by_kind, log_names, summarize
from detailbase.scans.clouds import prepared_folder
from detailbase.training.loop import run_epoch
from detailbase.training.state import Training, save_best
from refer3d.native.start import start_program
from refer3d.runs.device import choose_device
from refer3d.runs.errors import run
from refer3d.runs.folder import TIMINGS
from refer3d.runs.progress import Progress
from refer3d.runs.ranks import gathered, joined, rank, require_ranks
from refer3d.runs.results import peak_memory_mib, save_results

log = logging.getLogger(__name__)

LOG = "train.log"


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    train(read_options(argv, "train"))


@name_killed_workers()
def train(config: Config) -> Path:
    """Trains for the epochs that are left; returns the run's folder.

    Raises:
        InputError: A file is absent or wrong; all are checked before the folder is made.
    """
    start_program("detailbase", config.deterministic, config.precision)
    with joined(choose_device(config.device)) as device:
        return _train(config, device)


def _train(config: Config, device: torch.device) -> Path:
    scans = prepared_folder(config.data)
    learned = [r for name in config.data.train_on for r in read_split(config.data, name, "train")]
    validated = read_split(config.data, config.data.dataset, "val")
    Batches([*learned, *validated], scans, config.data)  # raises where a scan is absent
    encoder = word_encoder(config.text, device)
    sentences = Sentences.encode(encoder, [*learned, *validated], device)
    learned = sentences.answerable(learned)
    training = Training.start(config, sentences.encoder.dim, device)
    if config.resume:
        training.load(Path(config.resume))
        log.info("resuming behind batch %d of epoch %d", training.batch, training.epoch + 1)

    epochs = config.train.epochs
    of_epoch = Batches(learned, scans, config.data, config.seed, epoch=0)
    require_ranks(min(map(len, of_epoch.batches)), "--data.scenes_per_batch: scans in each batch")
    steps = epochs * len(of_epoch)
    done = steps * training.epoch // epochs + training.batch
    with ExitStack() as stack:
        out = None  # the first process alone writes
        if not rank():
            out = stack.enter_context(claim_folder(config, training.save))
            stack.enter_context(log_file(out / LOG))
        progress = stack.enter_context(Progress("training", steps, done, events=out))
        while training.epoch < epochs:
            start = time.perf_counter()
            run_epoch(config, training, learned, sentences, out and out / LAST, progress)
            between = time.perf_counter()
            if training.epoch % config.train.validate_every == 0 or training.epoch == epochs:
                scores = validate(training, config, validated, scans, sentences)
                progress.report(progress.done, "val", **log_names(scores["all"]))
                training.mIoU = scores["all"]["mIoU"]
                is_best = training.mIoU > training.best
                training.best = max(training.best, training.mIoU)
                if out and is_best:
                    save_best(out / BEST, training, config, sentences.encoder)
            stages = {"training": between - start, "validation": time.perf_counter() - between}
            for name, duration in stages.items():
                training.seconds[name] = training.seconds.get(name, 0.0) + duration
            if not out:
                continue
            training.save(out / LAST)
            seconds = {name: round(value, 1) for name, value in training.seconds.items()}
            peak = round(peak_memory_mib())
            timings = {"epochs": training.epoch, "seconds": seconds, "peak_mib": peak}
            save_results(out / TIMINGS, timings)
        log.info("trained: %s, best mIoU on val %.4f", out, training.best)
    return out or Path()


def validate(
    training: Training,
    config: Config,
    references: Sequence[Reference],
    scans: Path,
    sentences: Sentences,
) -> dict[str, dict[str, float]]:
    """Scores the network, logs the scores of each kind, and fits the masks' scores to the IoUs."""
    network = training.evaluated
    calibrate(network)  # resets it: the fit takes plain scores
    own = list(score(network, references, scans, sentences, config.data, sentences.device))
    rows = sorted(gathered(own), key=lambda row: row.sentence)
    calibrate(network, rows)
    scores = {"all": summarize(rows), **by_kind(rows)}
    for kind, values in scores.items():
        line = "  ".join(f"{name} {value:.4f}" for name, value in log_names(values).items())
        log.info("epoch %d, val, %s: %s", training.epoch, kind, line)
    return scores


@contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Writes the log into a file, too, and above the progress bar instead of into it."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        with logging_redirect_tqdm():
            yield
    finally:
        root.removeHandler(handler)
        handler.close()


if __name__ == "__main__":
    run(main)
