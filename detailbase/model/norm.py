"""Batch norm of voxels and superpoints, of which there may be few."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class BatchNorm(nn.BatchNorm1d):
    """PyTorch's, which also trains on a single row.

    One row has no spread. It is normalised by what was seen before, as in evaluation.
    """

    def forward(self, features: Tensor) -> Tensor:  # [M, C] -> [M, C]
        if self.training and len(features) < 2:
            seen = (self.running_mean, self.running_var)
            return F.batch_norm(features, *seen, self.weight, self.bias, eps=self.eps)
        return super().forward(features)
