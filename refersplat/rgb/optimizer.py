"""Adam for Gaussians, whose number changes while they are optimised."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from refer3d.runs.device import to_device
from refersplat.config import RgbConfig
from refersplat.ops.adam import adam_step
from refersplat.splats.gaussians import SH_COEFFICIENTS, Gaussians


def learning_rates(config: RgbConfig, extent: float, iteration: int) -> dict[str, list[float]]:
    """Per tensor of the Gaussians, one rate for each number in a row.

    Positions slow down log-linearly; a scene twice as large takes steps twice as long.
    """
    progress = min(max(iteration / config.iterations, 0.0), 1.0)
    position = config.position_lr_init ** (1 - progress) * config.position_lr_final**progress
    rest = config.feature_lr / 20
    return {
        "means": [position * extent] * 3,
        "log_scales": [config.scaling_lr] * 3,
        "quats": [config.rotation_lr] * 4,
        "logit_opacities": [config.opacity_lr],
        "sh": [config.feature_lr] * 3 + [rest] * 3 * (SH_COEFFICIENTS - 1),
    }


@dataclass
class Adam:
    """Gaussians as leaves of autograd, with the moments of their gradients.

    The moments have the Gaussians' own shape, so that whatever selects or joins rows does it to
    all three alike. A Gaussian that joins starts with moments of zero.
    """

    gaussians: Gaussians
    first: Gaussians
    """Running mean of the gradients."""
    second: Gaussians
    """Running mean of the squared gradients."""
    steps: int = 0

    @classmethod
    def start(cls, gaussians: Gaussians) -> Adam:
        """Optimises ``gaussians`` from here on, with no memory of earlier gradients."""
        adam = cls(gaussians, gaussians.map(torch.zeros_like), gaussians.map(torch.zeros_like))
        adam._as_leaves()
        return adam

    def step(self, rates: dict[str, list[float]]) -> None:
        """Moves each tensor against its gradient, then drops the gradients."""
        self.steps += 1
        first, second = self.first.tensors(), self.second.tensors()
        learned = {n: p for n, p in self.gaussians.tensors().items() if p.grad is not None}
        # One copy to the device instead of one for each tensor.
        sizes = [len(rates[name]) for name in learned]
        flat = torch.tensor([rate for name in learned for rate in rates[name]])
        split = to_device(flat, self.gaussians.means.device).split(sizes) if learned else ()
        for (name, parameter), rate in zip(learned.items(), split, strict=True):
            adam_step(
                parameter.detach(), parameter.grad, first[name], second[name], rate, self.steps
            )
            parameter.grad = None

    @torch.no_grad()
    def keep(self, mask: Tensor) -> None:
        """Removes the Gaussians where ``mask`` [N] is False."""
        self.gaussians = self.gaussians.select(mask)
        self.first, self.second = self.first.select(mask), self.second.select(mask)
        self._as_leaves()

    @torch.no_grad()
    def append(self, added: Gaussians) -> None:
        """Optimises ``added`` too, behind those that are there."""
        nothing = added.map(torch.zeros_like)
        self.gaussians = self.gaussians.joined(added)
        self.first, self.second = self.first.joined(nothing), self.second.joined(nothing)
        self._as_leaves()

    @torch.no_grad()
    def limit_opacities(self, ceiling: float) -> None:
        """Lowers the opacities above ``ceiling`` to it, and forgets where they were heading."""
        self.gaussians.logit_opacities.clamp_(max=math.log(ceiling / (1 - ceiling)))
        self.first.logit_opacities.zero_()
        self.second.logit_opacities.zero_()

    def _as_leaves(self) -> None:
        self.gaussians = self.gaussians.map(lambda tensor: tensor.detach().requires_grad_())
