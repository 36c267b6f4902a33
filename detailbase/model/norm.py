"""Batch norm that also trains on a single voxel or superpoint."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class BatchNorm(nn.BatchNorm1d):
    """PyTorch's batch norm, extended to a batch of one row.

    One row has no variance; it is normalised by the running statistics, as in evaluation.
    """

    @property
    def statistics(self) -> tuple[Tensor, Tensor]:  # [C], [C]
        """Running mean and variance."""
        assert self.running_mean is not None
        assert self.running_var is not None
        return self.running_mean, self.running_var

    def forward(self, features: Tensor) -> Tensor:  # [M, C] -> [M, C]
        if self.training and len(features) < 2:
            return F.batch_norm(features, *self.statistics, self.weight, self.bias, eps=self.eps)
        return super().forward(features)
