"""Checkpoints of trained networks: their weights and the options that they were trained with."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import torch
from torch import Tensor

from detailbase.config import LEARNED, Config
from detailbase.model.build import build
from detailbase.model.network import DetailBase
from detailbase.model.weights import load_weights, read_checkpoint, read_weights
from refer3d.runs.config import from_mapping, load_yaml
from refer3d.runs.errors import InputError
from refer3d.runs.folder import RESOLVED, other_run
from refer3d.runs.options import differences
from refer3d.text_encoder import TextEncoder, is_same_text


@dataclass(frozen=True)
class Checkpoint:
    """Content of a file with a network's weights, ours or a published one."""

    path: Path
    weights: dict[str, Tensor]
    trained_with: Config | None
    """Options of the training; None in published files."""
    encoder: str | None
    """Identity of the text encoder; None in published files."""

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """Reads a file.

        Raises:
            InputError: The file is absent or holds no weights, or its options are wrong.
        """
        try:
            content = read_checkpoint(path)
            weights = read_weights(path, content)
        except InputError as error:
            if other := other_run(path, "detailbase"):
                raise InputError(f"{path}: {other}") from error
            raise
        config, encoder = content.get("config"), content.get("encoder")
        return cls(
            *(path, weights),
            from_mapping(Config, config, str(path)) if isinstance(config, dict) else None,
            encoder if isinstance(encoder, str) else None,
        )

    def options(self, config: Path | None = None) -> Config:
        """Returns the options that the network is built with.

        Args:
            config: A config file. Without one, the options are those in the checkpoint, or in the
                ``config.yaml`` beside it.

        Raises:
            InputError: None of them is there, or it is wrong.
        """
        if config is None and self.trained_with is not None:
            return self.trained_with
        path = config or self.path.with_name(RESOLVED)
        if not path.is_file():
            raise InputError(
                f"--config: {path}: no such file, and {self.path} does not hold the options of its "
                "network; name the config that it was trained with"
            )
        return load_yaml(path, Config)

    def network(self, config: Config, encoder: TextEncoder, device: torch.device) -> DetailBase:
        """Builds the network with these weights.

        Raises:
            InputError: They do not fit, or were trained with another text encoder or other options.
        """
        network = build(config.network, encoder.dim)
        load_weights(network, self.weights, self.path)
        if self.trained_with is not None:
            for name in differences(config, self.trained_with):
                if name in LEARNED and name != "text.encoder":
                    was, now = (attrgetter(name)(c) for c in (self.trained_with, config))
                    raise InputError(
                        f"--{name}: {self.path} was trained with {was!r}, got {now!r}; give "
                        "--config the config.yaml of the run that made it"
                    )
        if self.encoder is not None and not is_same_text(self.encoder, encoder.identity):
            raise InputError(
                f"{self.path}: was trained with the text of {self.encoder}, --text.encoder gives "
                f"that of {encoder.identity}; use the config of the run that made it"
            )
        return network.to(device).eval()
