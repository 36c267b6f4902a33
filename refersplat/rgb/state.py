"""State of the first stage: saved, resumed, and exported as Inria's checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from refer3d.runs.errors import InputError
from refer3d.runs.states import load_state, save_state, save_tensors
from refersplat.config import Config
from refersplat.data import Scene, View
from refersplat.ops.adam import BETAS, EPSILON
from refersplat.rgb.densify import DensificationStatistics
from refersplat.rgb.initialize import initial_gaussians
from refersplat.rgb.optimizer import Adam
from refersplat.splats.checkpoints import RGB_FORMAT
from refersplat.splats.gaussians import Gaussians

STATE_FILE = "rgb_state.pt"


@dataclass
class RgbState:
    """Everything that the remaining steps depend on."""

    adam: Adam
    statistics: DensificationStatistics
    generator: torch.Generator
    iteration: int = 0

    @classmethod
    def start(cls, config: Config, scene: Scene, device: torch.device | str) -> RgbState:
        """Makes the state before the first step."""
        generator = torch.Generator().manual_seed(config.seed)
        gaussians = initial_gaussians(scene, config.rgb, generator).to(device)
        return cls(Adam.start(gaussians), DensificationStatistics.start(gaussians), generator)

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
        state = load_state(path, RGB_FORMAT)
        if state["views"] != [view.name for view in views] or state["extent"] != extent:
            raise InputError(
                f"{path}: views: expected the {len(views)} training views of this scene and split, "
                f"got {len(state['views'])} of another; use the same -s and --eval, or another -m"
            )
        gaussians, first, second = (
            Gaussians(**state[name]).to(device) for name in ("gaussians", "first", "second")
        )
        adam = Adam.start(gaussians)
        adam.first, adam.second, adam.steps = first, second, state["steps"]
        statistics = DensificationStatistics(
            **{name: tensor.to(device) for name, tensor in state["statistics"].items()}
        )
        generator = torch.Generator()
        generator.set_state(state["generator"])
        return cls(adam, statistics, generator, state["iteration"])


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

    def fields(gaussians: Gaussians) -> dict[str, Tensor]:
        return {
            "xyz": gaussians.means,
            "f_dc": gaussians.sh_dc.contiguous(),
            "f_rest": gaussians.sh_rest.contiguous(),
            "opacity": gaussians.logit_opacities[:, None],
            "scaling": gaussians.log_scales,
            "rotation": gaussians.quats,
        }

    values = {name: nn.Parameter(t.detach()) for name, t in fields(adam.gaussians).items()}
    first, second = fields(adam.first), fields(adam.second)
    rate = {
        "xyz": rates["means"][0],
        "f_dc": rates["sh"][0],
        "f_rest": rates["sh"][-1],
        "opacity": rates["logit_opacities"][0],
        "scaling": rates["log_scales"][0],
        "rotation": rates["quats"][0],
    }
    common = {"betas": BETAS, "eps": EPSILON, "weight_decay": 0, "amsgrad": False}
    common |= dict.fromkeys(("maximize", "capturable", "differentiable"), False)
    common |= dict.fromkeys(("foreach", "fused"), None)
    steps = torch.tensor(float(adam.steps))
    optimizer = {
        "state": {
            index: {"step": steps.clone(), "exp_avg": first[name], "exp_avg_sq": second[name]}
            for index, name in enumerate(values)
        },
        "param_groups": [
            {"lr": rate[name], "name": name, **common, "params": [index]}
            for index, name in enumerate(values)
        ],
    }
    scene = (
        sh_degree,
        values["xyz"],
        values["f_dc"],
        values["f_rest"],
        values["scaling"],
        values["rotation"],
        values["opacity"],
        statistics.max_radii,
        statistics.gradient[:, None],
        statistics.views[:, None],
        optimizer,
        float(extent),
    )
    save_tensors(path, (scene, state.iteration))
