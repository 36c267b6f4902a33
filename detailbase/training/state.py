"""State of a training: the network, its running mean, the optimizer and the place in the epochs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from detailbase.config import Config, TrainConfig
from detailbase.model.build import build
from detailbase.model.network import DetailBase
from detailbase.model.weights import (
    BACKBONE,
    file_names,
    load_backbone,
    load_weights,
    network_names,
    read_weights,
)
from refer3d.runs.errors import InputError
from refer3d.runs.options import to_mapping
from refer3d.runs.ranks import world
from refer3d.runs.states import (
    Array,
    Number,
    adam_schema,
    first_line,
    like,
    load_adam,
    load_state,
    save_state,
)
from refer3d.text_encoder import TextEncoder

FORMAT = 1
PLAIN = {
    "epoch": Number(int, 0),
    "batch": Number(int, 0),
    "mIoU": Number(float, 0, 1),
    "best": Number(float, -1, 1),
    "seconds": {...: Number(float, 0)},
}
"""Fields of a training that are saved as they are, and their schema."""


def running_mean(network: nn.Module, keep: float) -> AveragedModel:
    """Makes an exponential moving average of the network.

    Its first steps keep less, so that a short training, too, forgets the initial weights.
    """
    average = AveragedModel(network, use_buffers=True)

    def move(means: Any, values: Any, _: Tensor | int) -> None:
        count = int(average.n_averaged)  # on the CPU; the argument is a GPU's copy
        get_ema_multi_avg_fn(min(keep, (1 + count) / (10 + count)))(means, values, count)

    average.multi_avg_fn = move
    return average


@dataclass
class Training:
    """Everything that the rest of a training depends on, beside the options and the files."""

    network: DetailBase
    optimizer: torch.optim.AdamW
    average: AveragedModel | None = None
    """Running mean of the weights and of the norms' statistics."""
    epoch: int = 0
    batch: int = 0
    """Finished batches of the epoch; the order and the random choices of the others follow from the
    seed, the epoch and the batch's number."""
    parallel: nn.Module = field(init=False)
    """The network; with several processes, wrapped to take the mean of their gradients."""
    mIoU: float = 0.0
    """Score on the validation split after the last epoch."""
    best: float = -1.0
    """Best of these scores so far."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Time of training and of validation."""

    def __post_init__(self) -> None:
        self.parallel = self.network
        if world() > 1:
            self.parallel = DistributedDataParallel(self.network)

    @classmethod
    def start(cls, config: Config, text_dim: int, device: torch.device) -> Training:
        """Makes the state before the first step, with weights from the seed or a backbone's file.

        Raises:
            InputError: The backbone cannot be read or does not fit.
        """
        options = config.train
        torch.manual_seed(config.seed)
        network = build(config.network, text_dim)
        if options.backbone:
            load_backbone(network, options.backbone)
        if options.start:
            load_weights(network, read_weights(options.start), Path(options.start), strict=False)
        network.to(device)
        backbone, others = [], []
        for name, parameter in network.named_parameters():
            (backbone if name.startswith(BACKBONE) else others).append(parameter)
        groups = [{"params": others}, {"params": backbone}]
        optimizer = torch.optim.AdamW(groups, weight_decay=options.weight_decay, fused=True)
        average = running_mean(network, options.ema_decay) if options.ema_decay else None
        training = cls(network, optimizer, average)
        training.set_rates(options)
        return training

    def set_rates(self, options: TrainConfig) -> None:
        """Sets the epoch's learning rates: halved after some shares of the epochs."""
        drops = sum(round(share * options.epochs) <= self.epoch for share in options.lr_drops)
        for group, scale in zip(
            self.optimizer.param_groups, (1.0, options.backbone_lr_scale), strict=True
        ):
            group["lr"] = options.lr * scale * 0.5**drops

    @property
    def evaluated(self) -> DetailBase:
        """The network that is validated and saved: the running mean, if there is one."""
        return self.network if self.average is None else cast(DetailBase, self.average.module)

    def save(self, path: Path) -> None:
        """Writes the state so that :meth:`load` continues to the same bits."""
        state: dict[str, Any] = {
            "format": FORMAT,
            "model": file_names(self.network.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average and file_names(self.average.state_dict()),
            "rng": torch.get_rng_state(),
        }
        save_state(path, state | {name: getattr(self, name) for name in PLAIN})

    def load(self, path: Path) -> None:
        """Reads a file of :meth:`save`.

        Raises:
            InputError: The file is broken, or belongs to other options.
        """
        schema = {
            "model": file_names(like(self.network.state_dict())),
            "optimizer": adam_schema(self.optimizer),
            "rng": Array.like(torch.get_rng_state()),
            **PLAIN,
        }
        if self.average is not None:
            schema["average"] = file_names(like(self.average.state_dict()))
        state = load_state(path, FORMAT, schema, "start another run")
        try:
            torch.set_rng_state(state["rng"])
        except RuntimeError as error:
            raise InputError(f"{path}: rng: {first_line(error)}; start another run") from error
        self.network.load_state_dict(network_names(state["model"]))
        load_adam(self.optimizer, state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(network_names(state["average"]))
        for name in PLAIN:
            setattr(self, name, state[name])


def save_best(path: Path, training: Training, config: Config, encoder: TextEncoder) -> None:
    """Writes the evaluated network's weights, its score, and the options of the training."""
    state = {"format": FORMAT, "model": file_names(training.evaluated.state_dict())}
    state |= {"epoch": training.epoch, "mIoU": training.mIoU}
    state |= {"config": to_mapping(config), "encoder": encoder.identity}
    save_state(path, state)
