"""The loop over an epoch's batches, and one step."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from detailbase.config import Config, TrainConfig
from detailbase.data.batches import Batch, Batches
from detailbase.descriptions.references import Reference
from detailbase.descriptions.sentences import Sentences
from detailbase.scans.clouds import prepared_folder
from detailbase.training.losses import Losses, total_loss
from detailbase.training.state import Training
from refer3d.runs.errors import InputError
from refer3d.runs.progress import Progress
from refer3d.runs.ranks import gathered, rank, sum_of, world

log = logging.getLogger(__name__)

REPORT_EVERY = 10
"""Steps between two reports."""


def run_epoch(
    config: Config,
    training: Training,
    references: Sequence[Reference],
    sentences: Sentences,
    last: Path | None,
    progress: Progress,
) -> None:
    """Trains on the batches that are left of the epoch; on the way saves the state to ``last``."""
    options, scans = config.train, prepared_folder(config.data)
    place = (config.seed, training.epoch, training.batch)
    batches = Batches(references, scans, config.data, *place, share=(rank(), world()))
    total = training.batch + len(batches)
    save_every = options.checkpoint_every * options.accumulate
    left_out = 0
    training.network.train()
    training.set_rates(options)
    for batch in batches.loader():
        left_out += batch.left_out
        losses = add_gradients(training, batch.to(sentences.device), sentences, options)
        training.batch += 1
        if training.batch % options.accumulate == 0 or training.batch == total:
            step(training, options)
        progress.advance()
        if losses is not None and progress.done % REPORT_EVERY == 0:
            progress.report(progress.done, "", **numbers(losses, training))
        if last and training.batch % save_every == 0 and training.batch < total:
            training.save(last)
    augment, left_out = config.data.augment, sum(gathered([left_out]))
    if left_out and not (augment.thin or augment.holes):  # else it is by design
        log.warning(
            "epoch %d: %d phrases name objects without points and were left out",
            *(training.epoch + 1, left_out),
        )
    training.epoch, training.batch = training.epoch + 1, 0


def add_gradients(
    training: Training, batch: Batch, sentences: Sentences, options: TrainConfig
) -> Losses | None:
    """Adds a batch's gradients; returns None where none of its phrases has a point.

    Of several processes, each must have such a phrase.

    Raises:
        InputError: The loss is not finite.
    """
    device = batch.features.device
    if sum_of(torch.tensor(float(bool(batch.phrases)), device=device)) < world():
        return None
    is_mixed = options.amp and device.type == "cuda"
    with torch.autocast(device.type, torch.bfloat16, enabled=is_mixed):
        predictions = training.parallel(**batch.inputs(sentences))
    losses = total_loss(predictions, batch, options)
    (losses.total / options.accumulate).backward()  # before the check, which waits for a GPU
    if not math.isfinite(losses.total.item()):
        raise InputError(
            f"--train.lr: the loss is {losses.total.item()} in batch {training.batch + 1} of epoch "
            f"{training.epoch + 1}; lower the learning rate, or set --train.clip"
        )
    return losses


def step(training: Training, options: TrainConfig) -> None:
    """Updates the weights and their running mean."""
    if options.clip:
        nn.utils.clip_grad_norm_(training.network.parameters(), options.clip)
    training.optimizer.step()
    if training.average is not None:
        training.average.update_parameters(training.network)
    training.optimizer.zero_grad()


def numbers(losses: Losses, training: Training) -> dict[str, float]:
    """Returns the reported numbers of a step; the terms are the last round's."""
    terms = {"bce": losses.cross_entropy, "dice": losses.dice, "score": losses.score}
    numbers = {"loss": losses.total} | {name: term[-1] for name, term in terms.items()}
    state = {"lr": training.optimizer.param_groups[0]["lr"], "mIoU": training.mIoU}
    return {name: float(value.detach()) for name, value in numbers.items()} | state
