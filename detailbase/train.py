"""Trains detailbase on descriptions of scans."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from detailbase.answering import build, inputs
from detailbase.command import (
    BEST,
    CHANGEABLE,
    LAST,
    RESOLVED,
    choose_device,
    prepared_folder,
    read_options,
    references_of,
    run_folder,
)
from detailbase.config import Config, TrainConfig
from detailbase.data.dataset import Batch, Batches
from detailbase.data.references import Reference
from detailbase.evaluate import score
from detailbase.losses import Losses, loss
from detailbase.metrics import summarise
from detailbase.model.network import DetailBase
from detailbase.model.weights import load_backbone
from detailbase.sentences import Sentences
from runs.config import differences, from_mapping, save_yaml, to_mapping
from runs.errors import InputError
from runs.files import load_state, save_state
from runs.progress import Progress
from runs.results import Stopwatch

log = logging.getLogger(__name__)

DESCRIPTION = "Trains detailbase on descriptions of scans."
FORMAT = 1
TIMINGS = "timings.json"
REPORT_EVERY = 5


def main(argv: Sequence[str]) -> None:
    """The command."""
    config = read_options(argv, "train.py", DESCRIPTION)
    folder, state = run_folder(config, argv)
    train(config, folder, state)


@dataclass
class Training:
    """Everything that the rest of a training depends on."""

    model: DetailBase
    optimizer: torch.optim.AdamW
    scaler: torch.amp.GradScaler
    epoch: int = 0
    batch: int = 0
    """How many batches of the epoch are done."""
    best: float = -1.0
    """The best mIoU on the validation split so far."""

    @classmethod
    def start(cls, config: Config, text_dim: int, device: torch.device) -> Training:
        """Before the first step: weights drawn from the seed, or read."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            model = build(config, text_dim)
        if config.train.backbone:
            load_backbone(model, config.train.backbone)
        model.to(device)
        decoder = [p for name, p in model.named_parameters() if name.startswith("decoder.")]
        backbone = [p for name, p in model.named_parameters() if not name.startswith("decoder.")]
        options = config.train
        groups = [
            {"params": decoder, "scale": 1.0},
            {"params": backbone, "scale": options.backbone_lr_scale},
        ]
        optimizer = torch.optim.AdamW(
            groups, lr=options.lr, weight_decay=options.weight_decay, fused=True
        )
        is_mixed = options.amp and device.type == "cuda"
        return cls(model, optimizer, torch.amp.GradScaler(device.type, enabled=is_mixed))

    def save(self, path: Path, config: Config) -> None:
        """Writes the state so that :meth:`load` goes on to the same numbers."""
        state = {
            "format": FORMAT,
            "config": to_mapping(config),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "epoch": self.epoch,
            "batch": self.batch,
            "best": self.best,
        }
        save_state(path, state)

    def load(self, path: Path, config: Config) -> None:
        """Reads what :meth:`save` wrote.

        Raises:
            InputError: The file is broken, or its run had other options.
        """
        state = load_state(path, FORMAT)
        before = from_mapping(Config, state["config"], str(path))
        if differing := [n for n in differences(config, before) if n not in CHANGEABLE]:
            raise InputError(
                f"--resume: the run of {path} has another {differing[0]}; leave the option out, or "
                "start a new run"
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.epoch, self.batch, self.best = state["epoch"], state["batch"], state["best"]


def train(config: Config, folder: Path, resume: Path | None = None) -> Training:
    """Runs the epochs that are left; writes last.pth, best.pth, the log and the options.

    Raises:
        InputError: A file is absent or wrong; they are all looked at first.
    """
    device = choose_device(config.train.device)
    taught = [
        reference
        for dataset in config.data.train_on
        for reference in references_of(config, dataset, "train")
    ]
    asked = references_of(config, config.data.dataset, "val")
    scans = prepared_folder(config)
    Batches([*taught, *asked], scans, config.data)  # so that absent scans are told now
    sentences = Sentences.encode(config.text, [*taught, *asked], device)
    training = Training.start(config, sentences.dim, device)
    if resume is not None:
        training.load(resume, config)
        log.info("going on from epoch %d, batch %d", training.epoch, training.batch)
    save_yaml(dataclasses.replace(config, resume="", work_dir=str(folder)), folder / RESOLVED)

    watch = Stopwatch(folder / TIMINGS)
    while training.epoch < config.train.epochs:
        with watch.stage("training"):
            run_epoch(config, training, taught, scans, sentences, folder)
        with watch.stage("validation"):
            rows = list(score(training.model, asked, scans, sentences, config, device))
        metrics = summarise(rows)
        log.info(
            "epoch %d of %d: validation mIoU %.4f, acc@0.5 %.4f",
            *(training.epoch, config.train.epochs, metrics["mIoU"], metrics["acc@0.5"]),
        )
        if metrics["mIoU"] > training.best:
            training.best = metrics["mIoU"]
            best = {"format": FORMAT, "config": to_mapping(config)}
            best |= {"model": training.model.state_dict(), "epoch": training.epoch}
            save_state(folder / BEST, {**best, "metrics": metrics})
        training.save(folder / LAST, config)
    return training


def run_epoch(
    config: Config,
    training: Training,
    taught: Sequence[Reference],
    scans: Path,
    sentences: Sentences,
    folder: Path,
) -> None:
    """Goes through the batches that the epoch still has."""
    options, model = config.train, training.model
    for group in training.optimizer.param_groups:
        group["lr"] = learning_rate(options, training.epoch) * group["scale"]
    batches = Batches(taught, scans, config.data, config.seed, training.epoch, training.batch)
    total = training.batch + len(batches)
    model.train()
    label = f"epoch {training.epoch + 1}/{options.epochs}"
    with Progress(label, total, training.batch, events=folder) as progress:
        for batch in loaded(batches, sentences.device):
            training.batch += 1
            losses = step(training, batch, sentences, options, training.batch == total)
            progress.advance()
            if losses is not None and training.batch % REPORT_EVERY == 0:
                done = training.epoch * total + training.batch
                progress.report(done, **_numbers(losses))
            is_whole = training.batch % options.accumulate == 0 and training.batch < total
            if is_whole and training.batch % options.checkpoint_every == 0:
                training.save(folder / LAST, config)
    training.epoch, training.batch = training.epoch + 1, 0


def step(
    training: Training, batch: Batch, sentences: Sentences, options: TrainConfig, is_last: bool
) -> Losses | None:
    """One batch; the weights move after every ``options.accumulate``, and after the last."""
    losses = None
    if batch.references:
        device = batch.features.device
        with torch.autocast(device.type, enabled=training.scaler.is_enabled()):
            predictions = training.model(*inputs(batch, sentences))
        losses = loss(predictions, batch.sentence_of_phrase, batch.query_of_phrase, batch.targets)
        training.scaler.scale(losses.total / options.accumulate).backward()
    if is_last or training.batch % options.accumulate == 0:
        if options.clip:
            training.scaler.unscale_(training.optimizer)
            nn.utils.clip_grad_norm_(training.model.parameters(), options.clip)
        training.scaler.step(training.optimizer)
        training.scaler.update()
        training.optimizer.zero_grad()
    return losses


def loaded(batches: Batches, device: torch.device) -> Iterator[Batch]:
    """The batches, read ahead."""
    for batch in batches.loader():
        yield batch.to(device)


def learning_rate(options: TrainConfig, epoch: int) -> float:
    """Halved after each of ``lr_drops``."""
    return options.lr * 0.5 ** sum(epoch >= drop * options.epochs for drop in options.lr_drops)


def _numbers(losses: Losses) -> dict[str, float]:
    return {
        "loss": float(losses.total.detach()),
        "bce": float(losses.cross_entropy[-1].detach()),
        "dice": float(losses.dice[-1].detach()),
        "score": float(losses.score[-1].detach()),
    }
