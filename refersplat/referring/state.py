"""State of the referring stage: precomputed inputs, and the parameters that a run resumes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from refer3d.runs.errors import InputError
from refer3d.runs.records import first_few
from refer3d.runs.states import (
    Array,
    Finite,
    Maybe,
    Number,
    adam_schema,
    first_line,
    like,
    load_adam,
    load_state,
    save_state,
)
from refer3d.text_encoder import TextFeatures
from refersplat.config import Config
from refersplat.data import Scene, View
from refersplat.field.network import ReferringField
from refersplat.language.groups import Groups
from refersplat.ops.adam import EPSILON
from refersplat.referring.supervision import BlendCache
from refersplat.rgb.state import STATE_FILE as RGB_STATE
from refersplat.splats.checkpoints import RGB_FORMAT, ReferSplatField

FORMAT = 2
STATE_FILE = "referring_state.pt"
RESULT_FILE = "referring.pt"
ANEW = "train into a new folder"
FEATURE_DIM = 16
SHARE = Number(float, 0, 1)
RESULT = {
    "field": Finite,
    "features": Array(("N", "C")),
    "encoder": Maybe(str),
    "encoder_identity": str,
    "text_dim": Number(int, 1, 2**16),
    "threshold": SHARE,
    "field_threshold": SHARE,
    "aside": [str],
    "training_views": Maybe([str]),
    "language": Maybe(
        {
            "groups": {
                "logits": Array(("N", "G"), torch.float16),
                "sentences": [[Number(int, 0)]],
                "facts": Finite,
            },
            "known": {...: Number(int, 0)},
            "options": Finite,
            "categories": Maybe([Maybe(str)]),
            ...: Finite,
        }
    ),
    "is_surface": Array(("N",), torch.bool),
    "cameras": {
        ...: {
            "world_to_camera": Array((4, 4)),
            **dict.fromkeys(("fx", "fy", "cx", "cy"), Number(float)),
            **dict.fromkeys(("width", "height"), Number(int, 1, 2**16)),
        }
    },
}
"""Schema of ``referring.pt``."""


def trained_views(folder: Path, views: Sequence[View]) -> list[str]:
    """Returns the names of those views that a run was trained on.

    A photo of the same name that another camera has taken is another view. Of runs of earlier
    versions only ``rgb_state.pt`` tells, the views of the Gaussians.

    Raises:
        InputError: The run's files are broken.
    """
    path, state = folder / RESULT_FILE, folder / RGB_STATE
    names, cameras = None, {}
    if path.is_file():
        schema = {"training_views": Maybe([str]), "cameras": Maybe(RESULT["cameras"])}
        result = load_state(path, FORMAT, schema, ANEW)
        names, cameras = result["training_views"], result["cameras"] or {}
    if names is None and state.is_file():
        names = load_state(state, RGB_FORMAT, {"views": [str]}, ANEW)["views"]

    def is_same(view: View) -> bool:
        pose = view.camera.world_to_camera
        return view.name not in cameras or torch.allclose(
            cameras[view.name]["world_to_camera"], pose, atol=1e-4
        )

    return [view.name for view in views if view.name in (names or ()) and is_same(view)]


def refuse_trained_views(folder: Path, scene: Scene, remedy: str) -> None:
    """Refuses test views that a run was trained on, since the split was another then.

    Raises:
        InputError: There are some; the message ends with ``remedy``.
    """
    if seen := trained_views(folder, scene.test):
        raise InputError(
            f"{folder}: expected a run that has not seen the {len(scene.test)} test views of "
            f"{scene.path} ({scene.split}), got one that was trained on {len(seen)} of them "
            f"({first_few(seen)}): the split has changed; {remedy}"
        )


@dataclass(frozen=True)
class Precomputed:
    """Inputs that all steps share."""

    positions: Tensor
    """[N, 3] the Gaussians' means."""
    text: TextFeatures
    """The training sentences, encoded."""
    blends: BlendCache
    """Blend matrices of the views."""
    groups: Groups | None = None
    """Groups of Gaussians, unless the field answers alone."""
    held_out: tuple[int, ...] = ()
    """Rows of sentences that the first half of the training leaves out, one of each object."""
    identity: dict[str, Any] = field(default_factory=dict)
    """Values that a resumed run must share with the stopped one."""


@dataclass
class ReferringState:
    """Parameters, optimizer and position of the training."""

    field: ReferringField
    features: nn.Parameter
    """[N, C] the Gaussians' referring features."""
    optimizer: torch.optim.Adam
    stage: int = 0
    step: int = 0
    """Steps of the stage."""
    teacher: dict[str, Any] | None = None
    """In the second stage, the result of the first."""
    held_out_scores: Tensor | None = None
    """[held out, G] mean response of each group to the held-out sentences, before they trained."""

    @classmethod
    def start(cls, config: Config, precomputed: Precomputed, stage: int = 0) -> ReferringState:
        """Initialises a stage: features of zero, networks drawn from the seed."""
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
        """Returns the parameters that inference needs."""
        return {"field": self.field.state_dict(), "features": self.features.detach()}

    def set_learned(self, learned: dict[str, Any]) -> None:
        """Copies parameters that :meth:`learned` returned."""
        self.field.load_state_dict(learned["field"])
        with torch.no_grad():
            self.features.copy_(learned["features"])

    def adopt(self, published: ReferSplatField, config: Config) -> None:
        """Copies a field that ReferSplat has trained, and marks the training as finished.

        Raises:
            InputError: Its networks have other sizes; most likely it read another encoder.
        """
        try:
            self.set_learned({"field": published.weights, "features": published.feature})
        except RuntimeError as error:
            width = self.field.mlp1.fc1.in_features
            raise InputError(
                f"{config.rgb.start_checkpoint}: expected networks for words of width {width}, got "
                f"others ({first_line(error)}); name the --text.encoder that they were trained "
                "with, ReferSplat's is bert-large-uncased"
            ) from error
        self.stage, self.step = config.train.stages - 1, config.train.iterations

    def save(self, path: Path, identity: dict[str, Any]) -> None:
        """Writes the state, from which :meth:`load` resumes to the same bits."""
        state = {
            "format": FORMAT,
            "identity": identity,
            "stage": self.stage,
            "step": self.step,
            "learned": self.learned(),
            "optimizer": self.optimizer.state_dict(),
            "teacher": self.teacher,
            "trial": self.held_out_scores,
        }
        save_state(path, state)

    def load(self, path: Path, identity: dict[str, Any]) -> None:
        """Reads a file that :meth:`save` wrote.

        Raises:
            InputError: The file is broken, or its run had other Gaussians, views, text or options.
        """
        # Files of earlier versions lack the views.
        identity = {n: Maybe(v) if n == "training views" else v for n, v in identity.items()}
        learned = {"field": like(self.field.state_dict()), "features": Array.like(self.features)}
        schema = {
            "identity": identity,
            "stage": Number(int, 0),
            "step": Number(int, 0),
            "learned": learned,
            "optimizer": adam_schema(self.optimizer),
            "teacher": Maybe({**learned, "threshold": SHARE}),
            "trial": Maybe(Array((None, None))),
        }
        remedy = "use the stopped run's scene and options, or omit --resume to start anew"
        state = load_state(path, FORMAT, schema, remedy)
        self.stage, self.step, self.teacher = state["stage"], state["step"], state["teacher"]
        self.held_out_scores = state["trial"]
        self.set_learned(state["learned"])
        load_adam(self.optimizer, state["optimizer"])
