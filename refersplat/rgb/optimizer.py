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
    """Learning rates by field of the Gaussians, one for each number in a row.

    The rate of the centres falls log-linearly and grows with the scene's extent.
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


def pose_rate(config: RgbConfig, iteration: int) -> float:
    """Learning rate of the poses; it falls log-linearly to a hundredth."""
    return config.pose_lr * 0.01 ** min(iteration / config.iterations, 1.0)


@dataclass
class Adam:
    """Gaussians as leaves of autograd, with the moments of their gradients.

    The moments are Gaussians too, so that the same functions select and join the rows of all three.
    New Gaussians start with moments of zero.
    """

    gaussians: Gaussians
    first: Gaussians
    """Running mean of the gradients."""
    second: Gaussians
    """Running mean of the squared gradients."""
    steps: int = 0

    @classmethod
    def start(cls, gaussians: Gaussians) -> Adam:
        """Makes an optimizer of ``gaussians`` with moments of zero."""
        adam = cls(gaussians, gaussians.map(torch.zeros_like), gaussians.map(torch.zeros_like))
        adam._as_leaves()
        return adam

    def step(self, rates: dict[str, list[float]]) -> None:
        """Moves each tensor against its gradient, then drops the gradients."""
        self.steps += 1
        parameters = self.gaussians.tensors()
        first, second = self.first.tensors(), self.second.tensors()
        gradients = {n: p.grad for n, p in parameters.items() if p.grad is not None}
        # One copy to the device instead of one for each tensor.
        sizes = [len(rates[name]) for name in gradients]
        means = self.gaussians.means
        flat = torch.tensor([r for name in gradients for r in rates[name]], dtype=means.dtype)
        split = to_device(flat, means.device).split(sizes) if gradients else ()
        for (name, gradient), rate in zip(gradients.items(), split, strict=True):
            values = parameters[name].detach()
            adam_step(values, gradient, first[name], second[name], rate, self.steps)
            parameters[name].grad = None

    @torch.no_grad()
    def keep(self, mask: Tensor) -> None:
        """Removes the Gaussians where ``mask`` [N] is False."""
        self.gaussians = self.gaussians.select(mask)
        self.first, self.second = self.first.select(mask), self.second.select(mask)
        self._as_leaves()

    @torch.no_grad()
    def append(self, added: Gaussians) -> None:
        """Appends Gaussians, with moments of zero."""
        zeros = added.map(torch.zeros_like)
        self.gaussians = self.gaussians.joined(added)
        self.first, self.second = self.first.joined(zeros), self.second.joined(zeros)
        self._as_leaves()

    @torch.no_grad()
    def limit_opacities(self, ceiling: float) -> None:
        """Clamps opacities to ``ceiling``, and clears their moments."""
        self.gaussians.logit_opacities.clamp_(max=math.log(ceiling / (1 - ceiling)))
        self.first.logit_opacities.zero_()
        self.second.logit_opacities.zero_()

    def _as_leaves(self) -> None:
        self.gaussians = self.gaussians.map(lambda tensor: tensor.detach().requires_grad_())
