"""Grouping of superpoints into objects, and the features of those objects."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from detailbase.model.descriptors import NUM_DESCRIPTORS, POSITION, DescriptorEncoder, describe

HIDDEN = 64
OCTAVES = 4
ROWS = 2048
"""Superpoints that are compared with all others at once; training supervises at most as many."""


class PairLogits(NamedTuple):
    """Logits of two superpoints' belonging to one object, for some superpoints of a scene."""

    rows: Tensor
    """[A] the supervised superpoints; a subset in large scenes."""
    logits: Tensor
    """[A, S]."""


class ObjectGrouping(nn.Module):
    """Adds to each superpoint's features those of the object that it belongs to.

    Superpoints move in a space of their positions and a few learned dimensions; those that come
    near each other form one object. The published network has no grouping: each superpoint decides
    alone whether it belongs to a word's mask.
    """

    def __init__(self, channels: int, dims: int) -> None:
        """Makes the layers.

        Args:
            channels: C, the width of superpoint features.
            dims: Learned dimensions of the space.
        """
        super().__init__()
        self.move = nn.Sequential(
            nn.Linear(channels, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 3 + dims)
        )
        self.scale = nn.Parameter(torch.ones(3 + dims))
        self.nearness = nn.Parameter(torch.tensor(2.0))
        self.descriptors = DescriptorEncoder(channels, NUM_DESCRIPTORS + 6 * OCTAVES)

    def forward(
        self,
        features: Tensor,  # [S, C]
        sums: Tensor,  # [S, 13]
        starts: Sequence[int],
    ) -> tuple[Tensor, tuple[PairLogits, ...] | None]:  # [S, 3 C]
        """Groups the superpoints of each scene.

        Args:
            features: Superpoint features.
            sums: Superpoint moments.
            starts: Each scene's first superpoint, then the number of superpoints.

        Returns:
            features: Each superpoint's own, the mean over its object, the object's descriptors.
            pairs: The pair logits of each scene; None in evaluation.
        """
        moved = self.move(features)
        # Positions and their squares need all their digits, in mixed precision, too.
        with torch.autocast(features.device.type, enabled=False):
            means, descriptors, pairs = self._group(features.float(), moved.float(), sums, starts)
        grouped = torch.cat([features, means, self.descriptors(descriptors)], dim=1)
        return grouped, tuple(pairs) if self.training else None

    def _group(
        self,
        features: Tensor,  # [S, C]
        moved: Tensor,  # [S, 3 + dims]
        sums: Tensor,  # [S, 13]
        starts: Sequence[int],
    ) -> tuple[Tensor, Tensor, list[PairLogits]]:  # [S, C], [S, 37]
        """Computes mean features and descriptors of each superpoint's object, and pair logits."""
        positions = moved[:, :3] + describe(sums)[:, POSITION]
        moved = torch.cat([positions, moved[:, 3:]], dim=1) * self.scale
        pairs, means, totals = [], [], []
        for start, end in itertools.pairwise(starts):
            scene, weights = moved[start:end], sums[start:end]
            weighted = features[start:end] * weights[:, -1:]
            for some in scene.split(ROWS):
                # A large scan's affinities are not kept for the backward pass but computed again.
                mean, total = (
                    checkpoint(self._pool, some, scene, weighted, weights, use_reentrant=False)
                    if end - start > ROWS
                    else self._pool(some, scene, weighted, weights)
                )
                means.append(mean)
                totals.append(total)
            if self.training:
                step = max(1, -(-(end - start) // ROWS))
                rows = torch.arange(0, end - start, step, device=scene.device)
                pairs.append(
                    PairLogits(rows, self.nearness - squared_distances(scene[rows], scene))
                )
        descriptors = describe(torch.cat(totals))
        waves = fourier_features(descriptors[:, POSITION])
        return torch.cat(means), torch.cat([descriptors, waves], dim=1), pairs

    def _pool(
        self,
        some: Tensor,  # [A, 3 + dims]
        scene: Tensor,  # [S, 3 + dims]
        weighted: Tensor,  # [S, C]
        weights: Tensor,  # [S, 13]
    ) -> tuple[Tensor, Tensor]:  # [A, C], [A, 13]
        """Computes the mean features of some superpoints' objects, and their moments."""
        # Detached: only the pair loss trains the grouping, the answers given with it do not.
        affinity = (self.nearness - squared_distances(some, scene)).detach().sigmoid()
        size = (affinity @ weights[:, -1:]).clamp(min=1)
        return affinity @ weighted / size, affinity @ weights


def squared_distances(one: Tensor, other: Tensor) -> Tensor:  # [A, D], [B, D] -> [A, B]
    """Computes the squared distances between the rows of two tensors."""
    squares = other.square().sum(dim=1)
    return one.square().sum(dim=1, keepdim=True) + squares - 2 * one @ other.T


def fourier_features(xyz: Tensor) -> Tensor:  # [S, 3] -> [S, 24]
    """Computes sines and cosines of positions, so that a dot product can be sharp in space."""
    phases = (xyz[:, :, None] * 2.0 ** torch.arange(OCTAVES, device=xyz.device)).flatten(1)
    return torch.cat([phases.sin(), phases.cos()], dim=1)
