"""Adam of the visible Gaussians alone."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

BETAS = (0.9, 0.999)


class SparseGaussianAdam(torch.optim.Adam):
    """Moves visible Gaussians only (Mallick et al. 2024, Taming 3DGS), without bias correction."""

    def __init__(self, params: Iterable, lr: float, eps: float) -> None:
        super().__init__(params, lr=lr, betas=BETAS, eps=eps)

    @torch.no_grad()
    def step(self, visibility: Tensor, N: int) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Moves the rows where ``visibility`` [N] is True; each group holds one tensor of N rows.

        Raises:
            ValueError: A tensor has another number of rows.
        """
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if len(parameter) != N or visibility.shape != (N,):
                    raise ValueError(
                        f"visibility must have shape [{len(parameter)}], as many as the parameter "
                        f"{group.get('name', '')!r} has rows, got {list(visibility.shape)}"
                    )
                state = self.state[parameter]
                if not state:
                    state["step"] = torch.tensor(0.0)
                    state["exp_avg"] = torch.zeros_like(parameter)
                    state["exp_avg_sq"] = torch.zeros_like(parameter)
                rows = visibility.bool()
                gradient = parameter.grad[rows]
                first = state["exp_avg"][rows].lerp(gradient, 1 - BETAS[0])
                second = state["exp_avg_sq"][rows].lerp(gradient.square(), 1 - BETAS[1])
                state["exp_avg"][rows], state["exp_avg_sq"][rows] = first, second
                parameter[rows] -= group["lr"] * first / (second.sqrt() + group["eps"])
