"""Batch norm that also trains on a single voxel or superpoint, and over several processes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from refer3d.runs.device import full_precision
from refer3d.runs.ranks import sum_of, world


class BatchNorm(nn.BatchNorm1d):
    """PyTorch's batch norm, extended to a batch of one row.

    One row has no variance; it is normalised by the running statistics, as in evaluation. Processes
    that train together normalise by the statistics of all their rows; torch's SyncBatchNorm does so
    on GPUs only.
    """

    @property
    def statistics(self) -> tuple[Tensor, Tensor]:  # [C], [C]
        """Running mean and variance."""
        assert self.running_mean is not None
        assert self.running_var is not None
        return self.running_mean, self.running_var

    def forward(self, features: Tensor) -> Tensor:  # [M, C] -> [M, C]
        if self.training and world() > 1:
            return self._joint(features)
        if self.training and len(features) < 2:
            return F.batch_norm(features, *self.statistics, self.weight, self.bias, eps=self.eps)
        return super().forward(features)

    def _joint(self, features: Tensor) -> Tensor:  # [M, C] -> [M, C]
        """Normalises by the mean and variance over all processes."""
        values = full_precision(features)
        count = sum_of(values.new_tensor(float(len(values))))
        mean = sum_of(values.sum(dim=0)) / count
        centred = values - mean
        variance = sum_of(centred.square().sum(dim=0)) / count
        if self.track_running_stats and self.momentum is not None:
            with torch.no_grad():
                running_mean, running_variance = self.statistics
                running_mean.lerp_(mean, self.momentum)
                running_variance.lerp_(variance * count / (count - 1).clamp(min=1), self.momentum)
                if self.num_batches_tracked is not None:
                    self.num_batches_tracked += 1
        normal = centred * (variance + self.eps).rsqrt()
        if self.affine:
            normal = normal * self.weight + self.bias
        return normal.to(features)
