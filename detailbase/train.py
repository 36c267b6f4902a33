"""Trains detailbase on descriptions of scans."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from tqdm.contrib.logging import logging_redirect_tqdm

from detailbase.command import BEST, LAST, claim_folder, read_options
from detailbase.config import Config, TrainConfig
from detailbase.data.batches import Batch, Batches
from detailbase.descriptions.references import Reference
from detailbase.descriptions.sentences import Sentences, word_encoder
from detailbase.descriptions.sources import prepared_folder, read_split
from detailbase.evaluate import score
from detailbase.inference.answering import inputs
from detailbase.inference.metrics import by_kind, logged, summarize
from detailbase.training.losses import Losses, class_loss, loss, object_loss
from detailbase.training.state import Training, save_best
from refer3d.runs.device import choose_device, set_deterministic
from refer3d.runs.errors import InputError, run
from refer3d.runs.progress import Progress
from refer3d.runs.results import peak_memory_mib, save_results

log = logging.getLogger(__name__)

DESCRIPTION = "Trains detailbase on descriptions of scans and writes a folder below exps/."
TIMINGS = "timings.json"
LOG = "train.log"
REPORT_EVERY = 10
"""Steps between two reports."""


def main(argv: Sequence[str]) -> None:
    """The command."""
    train(read_options(argv, "train.py", DESCRIPTION))


def train(config: Config) -> Path:
    """Goes through the epochs that are left; returns the run's folder.

    Raises:
        InputError: A file is absent or wrong; they are all looked at before the folder is made.
    """
    torch.set_float32_matmul_precision(config.precision)
    set_deterministic(config.deterministic)
    device = choose_device(config.device)
    taught = [r for name in config.data.train_on for r in read_split(config.data, name, "train")]
    asked = read_split(config.data, config.data.dataset, "val")
    scans = prepared_folder(config.data)
    Batches([*taught, *asked], scans, config.data)  # says which scans are not there
    encoder = word_encoder(config.text, device)
    sentences = Sentences.encode(encoder, [*taught, *asked], device)
    taught = sentences.answerable(taught)
    training = Training.start(config, sentences.encoder.dim, device)
    if config.resume:
        training.load(Path(config.resume))
        log.info("going on behind batch %d of epoch %d", training.batch, training.epoch + 1)

    out, epochs = claim_folder(config), config.train.epochs
    if not (out / LAST).exists():
        training.save(out / LAST)  # so that --resume goes on even from before the first step
    steps = epochs * len(Batches(taught, scans, config.data, config.seed, epoch=0))
    done = steps * training.epoch // epochs + training.batch
    with kept_in(out / LOG), Progress("training", steps, done, events=out) as progress:
        while training.epoch < epochs:
            with timed(training, "training"):
                run_epoch(config, training, taught, sentences, out, progress)
            with timed(training, "validation"):
                rows = list(score(training.answering, asked, scans, sentences, config.data, device))
            scores = {"all": summarize(rows), **by_kind(rows)}
            training.mIoU = scores["all"]["mIoU"]
            for kind, known in scores.items():
                line = "  ".join(f"{name} {value:.4f}" for name, value in logged(known).items())
                log.info("epoch %d, val, %s: %s", training.epoch, kind, line)
            progress.report(progress.done, "val", **logged(scores["all"]))
            if training.mIoU > training.best:
                training.best = training.mIoU
                save_best(out / BEST, training, config, sentences.encoder)
            training.save(out / LAST)
            spent = {name: round(value, 1) for name, value in training.seconds.items()}
            save_results(
                out / TIMINGS,
                {"epochs": training.epoch, "seconds": spent, "peak_mib": round(peak_memory_mib())},
            )
        log.info("trained: %s, best mIoU on val %.4f", out, training.best)
    return out


def run_epoch(
    config: Config,
    training: Training,
    taught: Sequence[Reference],
    sentences: Sentences,
    out: Path,
    progress: Progress,
) -> None:
    """Goes through the batches that the epoch still has."""
    options, scans = config.train, prepared_folder(config.data)
    batches = Batches(taught, scans, config.data, config.seed, training.epoch, training.batch)
    last = training.batch + len(batches)
    save_every = options.checkpoint_every * options.accumulate
    left_out = 0
    training.network.train()
    for batch in batches.loader():
        left_out += batch.left_out
        losses = learn_from(training, batch.to(sentences.device), sentences, options)
        training.batch += 1
        if training.batch % options.accumulate == 0 or training.batch == last:
            step(training, options)
        progress.advance()
        if losses is not None and progress.done % REPORT_EVERY == 0:
            progress.report(progress.done, **numbers(losses, training))
        if training.batch % save_every == 0 and training.batch < last:
            training.save(out / LAST)
    if left_out:
        log.warning(
            "epoch %d: %d phrases name objects without points and were left out",
            *(training.epoch + 1, left_out),
        )
    training.scheduler.step()
    training.epoch, training.batch = training.epoch + 1, 0


def learn_from(
    training: Training, batch: Batch, sentences: Sentences, options: TrainConfig
) -> Losses | None:
    """Adds a batch's gradients; None where none of its phrases has a point.

    Raises:
        InputError: The loss is no number any more.
    """
    if not batch.phrases:
        return None
    device = batch.features.device
    is_mixed = options.amp and device.type == "cuda"
    with torch.autocast(device.type, torch.bfloat16, enabled=is_mixed):
        predictions = training.network(*inputs(batch, sentences))
    phrases = (batch.sentence_of_phrase, batch.query_of_phrase, batch.targets)
    losses = loss(predictions, *phrases, options.balance)
    total = losses.total
    if predictions.classes is not None:
        total = total + options.class_weight * class_loss(predictions.classes, batch.classes)
    if predictions.objects is not None:
        known = object_loss(predictions.objects, batch.objects, options.balance)
        total = total + options.object_weight * known
    losses = losses._replace(total=total)
    (losses.total / options.accumulate).backward()  # first, so that a GPU has something to do
    if not math.isfinite(losses.total.item()):
        raise InputError(
            f"--train.lr: the loss is {losses.total.item()} in batch {training.batch + 1} of epoch "
            f"{training.epoch + 1}; lower the learning rate, or set --train.clip"
        )
    return losses


def step(training: Training, options: TrainConfig) -> None:
    """Moves the weights along the gradients."""
    if options.clip:
        nn.utils.clip_grad_norm_(training.parameters(), options.clip)
    training.optimizer.step()
    if training.average is not None:
        training.average.update_parameters(training.network)
    training.optimizer.zero_grad()


def numbers(losses: Losses, training: Training) -> dict[str, float]:
    """What is shown of a step; of the terms, the last round's."""
    return {
        "loss": float(losses.total.detach()),
        "bce": float(losses.cross_entropy[-1].detach()),
        "dice": float(losses.dice[-1].detach()),
        "score": float(losses.score[-1].detach()),
        "lr": training.optimizer.param_groups[0]["lr"],
        "mIoU": training.mIoU,
    }


@contextmanager
def timed(training: Training, name: str) -> Iterator[None]:
    """Adds up what a stage takes."""
    start = time.perf_counter()
    yield
    spent = time.perf_counter() - start
    training.seconds[name] = training.seconds.get(name, 0.0) + spent


@contextmanager
def kept_in(path: Path) -> Iterator[None]:
    """Writes what is logged into a file, too, and above the bar instead of into it."""
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
