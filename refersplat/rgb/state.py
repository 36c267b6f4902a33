"""State of the first stage: saved, resumed, and exported as Inria's checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from refer3d.runs.errors import InputError
from refer3d.runs.states import AGAIN, Array, Maybe, Number, load_state, save_state
from refersplat.config import Config
from refersplat.data import Scene, View
from refersplat.ops.adam import BETAS, EPSILON
from refersplat.rgb.densify import DensificationStatistics
from refersplat.rgb.exposure import Exposures
from refersplat.rgb.initialize import initial_gaussians
from refersplat.rgb.optimizer import Adam
from refersplat.rgb.poses import Motions
from refersplat.splats.checkpoints import GAUSSIANS, RGB_FORMAT
from refersplat.splats.gaussians import Gaussians, validate

STATE_FILE = "rgb_state.pt"
SECOND_MOMENTS = {name: replace(array, low=0) for name, array in GAUSSIANS.items()}
SCHEMA = {
    "iteration": Number(int, 0),
    "gaussians": GAUSSIANS,
    "first": GAUSSIANS,
    "second": SECOND_MOMENTS,
    "steps": Number(int, 0),
    "statistics": dict.fromkeys(
        (field.name for field in fields(DensificationStatistics)), Array(("N",), low=0)
    ),
    "generator": Array.like(torch.Generator().get_state()),
    "views": [str],
    "extent": Number(float, 0),
    "exposures": Maybe({"values": Array(("V", 3, 4))}),
    "motions": Maybe(
        {
            "values": Array(("V", 6)),
            "first": Array(("V", 6)),
            "second": Array(("V", 6), low=0),
            "steps": [Number(int, 0, 2**31)],
        }
    ),
}


@dataclass
class RgbState:
    """Everything that the remaining steps depend on."""

    adam: Adam
    statistics: DensificationStatistics
    generator: torch.Generator
    iteration: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    """Row of each training view in exposures and motions, by its name."""
    exposures: Exposures | None = None
    """Colour transforms of the training photos, if they are fitted."""
    motions: Motions | None = None
    """Motions of the training cameras, if poses are refined."""

    @classmethod
    def start(cls, config: Config, scene: Scene, device: torch.device | str) -> RgbState:
        """Makes the state before the first step."""
        generator = torch.Generator().manual_seed(config.seed)
        gaussians = initial_gaussians(scene, config.rgb, generator).to(device)
        statistics = DensificationStatistics.start(gaussians)
        return cls(Adam.start(gaussians), statistics, generator, rows=_rows(scene.train))

    def save(self, path: Path, views: Sequence[View], extent: float) -> None:
        """Writes the state, from which :meth:`load` resumes with the same bits."""
        adam = self.adam
        state = {
            "format": RGB_FORMAT,
            "iteration": self.iteration,
            "gaussians": adam.gaussians.detached().tensors(),
            "first": adam.first.tensors(),
            "second": adam.second.tensors(),
            "steps": adam.steps,
            "statistics": vars(self.statistics),
            "generator": self.generator.get_state(),
            "views": [view.name for view in views],
            "extent": extent,
            "exposures": self.exposures and vars(self.exposures),
            "motions": self.motions and vars(self.motions),
        }
        save_state(path, state)

    @classmethod
    def load(
        cls, path: Path, views: Sequence[View], extent: float, device: torch.device | str
    ) -> RgbState:
        """Reads a saved state of these views.

        Raises:
            InputError: The file is broken or belongs to another scene.
        """
        state = load_state(path, RGB_FORMAT, SCHEMA)
        if state["views"] != [view.name for view in views] or state["extent"] != extent:
            raise InputError(
                f"{path}: views: expected the {len(views)} training views of this scene and split, "
                f"got {len(state['views'])} of another; use the same -s and --eval, or another -m"
            )
        gaussians, first, second = (
            Gaussians(**state[name]).to(device) for name in ("gaussians", "first", "second")
        )
        validate(gaussians, path)
        adam = Adam.start(gaussians)
        adam.first, adam.second, adam.steps = first, second, state["steps"]
        statistics = DensificationStatistics(
            **{name: tensor.to(device) for name, tensor in state["statistics"].items()}
        )
        generator = torch.Generator()
        generator.set_state(state["generator"])
        exposures, motions = state["exposures"], state["motions"]
        for name, values in (("exposures", exposures), ("motions", motions)):
            for key, rows in (values or {}).items():
                if len(rows) != len(views):
                    raise InputError(
                        f"{path}: {name}: {key}: expected one for each of the {len(views)} views, "
                        f"got {len(rows)}; {AGAIN}"
                    )
        return cls(
            *(adam, statistics, generator, state["iteration"], _rows(views)),
            exposures and Exposures(exposures["values"].to(device)),
            motions and Motions(**motions).to(device),
        )


def _rows(views: Sequence[View]) -> dict[str, int]:
    return {view.name: row for row, view in enumerate(views)}


def save_inria_checkpoint(
    path: Path | str,
    state: RgbState,
    rates: dict[str, list[float]],
    sh_degree: int,
    extent: float,
) -> None:
    """Writes ``chkpnt<n>.pth``, optimizer included, for ``GaussianModel.restore`` of Inria's code.

    Args:
        path: The file.
        state: The Gaussians with their moments and statistics.
        rates: Learning rates by field of the Gaussians, as :func:`learning_rates` makes them.
        sh_degree: Active degree of the colours' spherical harmonics.
        extent: Size of the scene.
    """
    adam, statistics = state.adam, state.statistics

    columns: dict[str, tuple[Callable[[Gaussians], Tensor], float]] = {
        "xyz": (lambda g: g.means, rates["means"][0]),
        "f_dc": (lambda g: g.sh_dc.contiguous(), rates["sh"][0]),
        "f_rest": (lambda g: g.sh_rest.contiguous(), rates["sh"][-1]),
        "opacity": (lambda g: g.logit_opacities[:, None], rates["logit_opacities"][0]),
        "scaling": (lambda g: g.log_scales, rates["log_scales"][0]),
        "rotation": (lambda g: g.quats, rates["quats"][0]),
    }
    values = {name: nn.Parameter(of(adam.gaussians).detach()) for name, (of, _) in columns.items()}
    options = {"betas": BETAS, "eps": EPSILON, "weight_decay": 0, "amsgrad": False}
    options |= dict.fromkeys(("maximize", "capturable", "differentiable"), False)
    options |= dict.fromkeys(("foreach", "fused"), None)
    optimizer: dict[str, Any] = {"state": {}, "param_groups": []}
    for index, (name, (of, rate)) in enumerate(columns.items()):
        moments = {"exp_avg": of(adam.first), "exp_avg_sq": of(adam.second)}
        optimizer["state"][index] = {"step": torch.tensor(float(adam.steps)), **moments}
        group = {"lr": rate, "name": name, **options, "params": [index]}
        optimizer["param_groups"].append(group)
    scene = (
        sh_degree,
        *(values[name] for name in ("xyz", "f_dc", "f_rest", "scaling", "rotation", "opacity")),
        statistics.max_radii,
        statistics.gradient[:, None],
        statistics.views[:, None],
        optimizer,
        float(extent),
    )
    save_state(path, (scene, state.iteration))
