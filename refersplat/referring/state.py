"""What the referring stage is given and what it has learned so far, for it to stop and go on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from refer3d.runs.errors import InputError
from refer3d.runs.states import first_line, load_state, save_state
from refer3d.text_encoder import TextFeatures
from refersplat.config import Config
from refersplat.field.network import ReferringField
from refersplat.language.groups import Groups
from refersplat.ops.adam import EPSILON
from refersplat.referring.supervision import BlendCache
from refersplat.splats.checkpoints import ReferSplatField

FORMAT = 2
STATE_FILE = "referring_state.pt"
RESULT_FILE = "referring.pt"
FEATURE_DIM = 16


@dataclass(frozen=True)
class Precomputed:
    """What the field is taught about, and does not change."""

    positions: Tensor
    """[N, 3] the Gaussians' means."""
    text: TextFeatures
    """The training sentences, encoded."""
    blends: BlendCache
    """Each view's rendering."""
    groups: Groups | None = None
    """The objects that the sentences mean, unless the field is to answer alone."""
    held_out: tuple[int, ...] = ()
    """One sentence of each object, which the first half of the training does without."""


@dataclass
class ReferringState:
    """Everything that the rest of the training depends on."""

    field: ReferringField
    features: nn.Parameter
    """[N, C] the Gaussians' referring features."""
    optimizer: torch.optim.Adam
    stage: int = 0
    step: int = 0
    """Steps of the stage."""
    teacher: dict[str, Any] | None = None
    """In the second stage, what the first has learned."""
    trial: Tensor | None = None
    """[held out, G] what each group answered to the sentences held out, before it learned them."""

    @classmethod
    def start(cls, config: Config, precomputed: Precomputed, stage: int = 0) -> ReferringState:
        """Before the first step of a stage: features of zero, networks drawn from the seed."""
        positions, text_dim = precomputed.positions, precomputed.text.words.shape[-1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed + stage)
            field = ReferringField(text_dim, FEATURE_DIM).to(positions.device)
        features = nn.Parameter(positions.new_zeros(len(positions), FEATURE_DIM))
        groups = [
            {"params": [features], "lr": config.train.feature_lr},
            {"params": list(field.parameters()), "lr": config.train.network_lr},
        ]
        return cls(field, features, torch.optim.Adam(groups, eps=EPSILON, fused=True), stage)

    def learned(self) -> dict[str, Any]:
        """What inference needs."""
        return {"field": self.field.state_dict(), "features": self.features.detach()}

    def learn(self, learned: dict[str, Any]) -> None:
        """Takes over what :meth:`learned` returned."""
        self.field.load_state_dict(learned["field"])
        with torch.no_grad():
            self.features.copy_(learned["features"])

    def adopt(self, published: ReferSplatField, config: Config) -> None:
        """Takes over what ReferSplat has trained: no stage and no step is left.

        Raises:
            InputError: Its networks are of other sizes; most likely it read another encoder.
        """
        try:
            self.learn({"field": published.weights, "features": published.feature})
        except RuntimeError as error:
            width = self.field.mlp1.fc1.in_features
            raise InputError(
                f"{config.rgb.start_checkpoint}: its networks do not fit a field that reads words "
                f"of {width} numbers ({first_line(error)}); name the --text.encoder that it was "
                "trained with, ReferSplat's is bert-large-uncased"
            ) from error
        self.stage, self.step = config.train.stages - 1, config.train.iterations

    def save(self, path: Path, identity: dict[str, Any]) -> None:
        """Writes the state so that :meth:`load` goes on to the same numbers."""
        state = {
            "format": FORMAT,
            "identity": identity,
            "stage": self.stage,
            "step": self.step,
            "learned": self.learned(),
            "optimizer": self.optimizer.state_dict(),
            "teacher": self.teacher,
            "trial": self.trial,
        }
        save_state(path, state)

    def load(self, path: Path, identity: dict[str, Any]) -> None:
        """Reads what :meth:`save` wrote.

        Raises:
            InputError: The file is broken, or its run had other Gaussians, text or options.
        """
        state = load_state(path, FORMAT)
        for name, value in identity.items():
            if state["identity"].get(name) != value:
                raise InputError(
                    f"{path}: the stopped run had {name} {state['identity'].get(name)!r}, this one "
                    f"has {value!r}; go on with the same, or start anew without --resume"
                )
        self.stage, self.step, self.teacher = state["stage"], state["step"], state["teacher"]
        self.trial = state["trial"]
        self.learn(state["learned"])
        self.optimizer.load_state_dict(state["optimizer"])
