"""The network as the options describe it, and the state that a training goes on from."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import MultiStepLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from detailbase.config import LEARNED_DATA, Config, NetworkConfig
from detailbase.model.network import DetailBase
from detailbase.model.weights import (
    BACKBONE,
    load_backbone,
    put_weights,
    read_checkpoint,
    weights_in,
)
from refer3d.runs.config import from_mapping, load_yaml, to_mapping
from refer3d.runs.errors import InputError
from refer3d.runs.states import load_state, save_state
from refer3d.text_encoder import TextEncoder, is_same_text

FORMAT = 1
RESOLVED = "config.yaml"
"""The options of the run, in its folder."""


def build(options: NetworkConfig, text_dim: int) -> DetailBase:
    """The network, with random weights."""
    return DetailBase(text_dim, **dataclasses.asdict(options))


@dataclass(frozen=True)
class Checkpoint:
    """A file with a network's weights, ours or a published one."""

    path: Path
    weights: dict[str, Tensor]
    learned_with: dict[str, Any] | None
    """The options of the training, where it was ours."""
    encoder: str | None
    """The identity of its text encoder, likewise."""

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """Reads a file.

        Raises:
            InputError: There is none, or no weights are in it.
        """
        content = read_checkpoint(path)
        weights = weights_in(content, path)
        config, encoder = (content.get(name) for name in ("config", "encoder"))
        return cls(
            *(path, weights),
            config if isinstance(config, dict) else None,
            encoder if isinstance(encoder, str) else None,
        )

    def options(self, given: Path | None = None) -> Config:
        """How the network is built: by a config file that is ``given``, else as it was trained,
        which the file itself says, or the ``config.yaml`` beside it.

        Raises:
            InputError: None of them is there, or it is wrong.
        """
        if given is None and self.learned_with is not None:
            return from_mapping(Config, self.learned_with, str(self.path))
        path = given or self.path.with_name(RESOLVED)
        if not path.is_file():
            raise InputError(
                f"--config: {path}: no such file, so nothing says how the network of {self.path} "
                "is built; name the config that it was trained with"
            )
        return load_yaml(path, Config)

    def network(self, config: Config, encoder: TextEncoder, device: torch.device) -> DetailBase:
        """The network with these weights.

        Raises:
            InputError: They do not fit, or were learned with other text or other options.
        """
        network = build(config.network, encoder.dim)
        put_weights(network, self.weights, self.path)
        self._check_learned_with(config)
        if self.encoder is not None and not is_same_text(self.encoder, encoder.identity):
            raise InputError(
                f"{self.path}: was learned with the text of {self.encoder}, --text.encoder gives "
                f"that of {encoder.identity}; use the config of the run that made it"
            )
        return network.to(device).eval()

    def _check_learned_with(self, config: Config) -> None:
        """Refuses options that the weights fit, but were not learned with."""
        learned, now = self.learned_with or {}, to_mapping(config)
        for section, names in (("network", now["network"]), ("data", LEARNED_DATA)):
            was, is_now = learned.get(section, {}), now[section]
            for name in names:
                if name in was and was[name] != is_now[name]:
                    raise InputError(
                        f"--{section}.{name}: {self.path} was learned with {was[name]!r}, got "
                        f"{is_now[name]!r}; give --config the config.yaml of the run that made it"
                    )


def running_mean(network: nn.Module, keep: float) -> AveragedModel:
    """A mean that moves towards the network's values; its first steps keep less, so that little of
    the beginning remains even of a short training.
    """
    average = AveragedModel(network, use_buffers=True)

    def move(means: list[Tensor], values: list[Tensor], _: Tensor | int) -> None:
        count = int(average.n_averaged)  # on the CPU; what is handed over is a GPU's copy
        get_ema_multi_avg_fn(min(keep, (1 + count) / (10 + count)))(means, values, count)

    average.multi_avg_fn = move
    return average


@dataclass
class Training:
    """Everything that the rest of a training depends on, beside the options and the files."""

    network: DetailBase
    optimizer: torch.optim.AdamW
    scheduler: MultiStepLR
    average: AveragedModel | None = None
    """The running mean of the weights and of what the norms have seen."""
    epoch: int = 0
    batch: int = 0
    """Batches of the epoch that are done; their order and what is random in them follows from the
    seed, the epoch and the batch's number."""
    mIoU: float = 0.0
    """On the validation split, after the last epoch."""
    best: float = -1.0
    """The best of them so far."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Spent in training and in validation."""

    @classmethod
    def start(cls, config: Config, text_dim: int, device: torch.device) -> Training:
        """Before the first step: weights drawn from the seed, the U-Net's perhaps read.

        Raises:
            InputError: The backbone cannot be read or does not fit.
        """
        options = config.train
        torch.manual_seed(config.seed)
        network = build(config.network, text_dim)
        if options.backbone:
            load_backbone(network, options.backbone)
        network.to(device)
        named = list(network.named_parameters())
        groups = [
            {"params": [p for name, p in named if not name.startswith(BACKBONE)]},
            {
                "params": [p for name, p in named if name.startswith(BACKBONE)],
                "lr": options.lr * options.backbone_lr_scale,
            },
        ]
        optimizer = torch.optim.AdamW(
            groups, lr=options.lr, weight_decay=options.weight_decay, fused=True
        )
        drops = [round(share * options.epochs) for share in options.lr_drops]
        average = running_mean(network, options.average) if options.average else None
        return cls(network, optimizer, MultiStepLR(optimizer, drops, gamma=0.5), average)

    @property
    def answering(self) -> DetailBase:
        """The network that is validated and kept."""
        return self.network if self.average is None else self.average.module

    def parameters(self) -> list[nn.Parameter]:
        """What is learned."""
        return list(self.network.parameters())

    def save(self, path: Path) -> None:
        """Writes the state so that :meth:`load` goes on to the same bits."""
        state: dict[str, Any] = {
            "format": FORMAT,
            "model": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "average": self.average and self.average.state_dict(),
            "rng": torch.get_rng_state(),
        }
        state |= {name: getattr(self, name) for name in _PLAIN}
        save_state(path, state)

    def load(self, path: Path) -> None:
        """Reads what :meth:`save` wrote.

        Raises:
            InputError: The file is broken, or of other options.
        """
        state = load_state(path, FORMAT)
        try:
            self.network.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scheduler.load_state_dict(state["scheduler"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            torch.set_rng_state(state["rng"])
            for name in _PLAIN:
                setattr(self, name, state[name])
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"{path}: does not hold what train.py writes for these options ({reason}); start "
                "another run"
            ) from error


_PLAIN = ("epoch", "batch", "mIoU", "best", "seconds")


def save_best(path: Path, training: Training, config: Config, encoder: TextEncoder) -> None:
    """Writes the weights, and what they were learned with."""
    state = {"format": FORMAT, "model": training.answering.state_dict()}
    state |= {"epoch": training.epoch, "mIoU": training.mIoU}
    state |= {"config": to_mapping(config), "encoder": encoder.identity}
    save_state(path, state)
