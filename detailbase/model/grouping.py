"""Grouping of superpoints into objects, and the features of those objects."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from detailbase.model.descriptors import NUM_DESCRIPTORS, POSITION, DescriptorEncoder, describe
from refer3d.runs.device import full_precision

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


class Grouped(NamedTuple):
    """Superpoints and the objects around them."""

    features: Tensor
    """[S, 3 C], each superpoint's own, the mean over its object, the object's descriptors."""
    objects: Tensor
    """[S, 13], descriptors of the object around each superpoint."""
    places: Tensor
    """[S, 3 + dims], where superpoints of one object lie together."""
    pairs: tuple[PairLogits, ...] | None
    """The pair logits of each scene; None in evaluation."""


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
    ) -> Grouped:
        """Groups the superpoints of each scene.

        Args:
            features: Superpoint features.
            sums: Superpoint moments.
            starts: Each scene's first superpoint, then the number of superpoints.
        """
        moved = self.move(features)
        # Positions and their squares need all their digits, in mixed precision, too.
        with torch.autocast(features.device.type, enabled=False):
            positions = full_precision(moved[:, :3]) + describe(sums)[:, POSITION]
            places = torch.cat([positions, full_precision(moved[:, 3:])], dim=1) * self.scale
            means, objects, pairs = self._group(full_precision(features), places, sums, starts)
            inputs = torch.cat([objects, fourier_features(objects[:, POSITION])], dim=1)
        grouped = torch.cat([features, means, self.descriptors(inputs)], dim=1)
        return Grouped(grouped, objects, places, tuple(pairs) if self.training else None)

    @torch.no_grad()
    def partition(
        self,
        places: Tensor,  # [S, 3 + dims]
        sizes: Tensor,  # [S]
    ) -> Tensor:  # [S]
        """Settles which superpoints of a scene form an object; see :func:`link`."""
        return link(places, sizes, float(self.nearness))

    def _group(
        self,
        features: Tensor,  # [S, C]
        places: Tensor,  # [S, 3 + dims]
        sums: Tensor,  # [S, 13]
        starts: Sequence[int],
    ) -> tuple[Tensor, Tensor, list[PairLogits]]:  # [S, C], [S, 13]
        """Computes mean features and descriptors of each superpoint's object, and pair logits."""
        pairs, means, totals = [], [], []
        for start, end in itertools.pairwise(starts):
            scene, weights = places[start:end], sums[start:end]
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
        return torch.cat(means), describe(torch.cat(totals)), pairs

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


def link(
    places: Tensor,  # [S, D]
    sizes: Tensor,  # [S]
    limit: float,
) -> Tensor:  # [S]
    """Joins superpoints into objects, as average linkage does with squared distances.

    The mean squared distance between the points of two clusters is that of their means plus the
    variance of each. Clusters that are each other's nearest are joined at once while it is below
    the limit; the result is that of joining the nearest two of all, again and again, because no
    joining brings a third cluster nearer than the nearer of the two was.

    Args:
        places: Positions of superpoints in any space.
        sizes: Weights of the superpoints.
        limit: Largest mean squared distance between the two parts of an object.

    Returns:
        [S] int64, each superpoint's object, numbered from 0 in the order of their first ones.
    """
    means, weights, spreads = places.double(), sizes.double(), sizes.double() * 0
    labels = torch.arange(len(places), device=places.device)
    while len(means) > 1:
        nearest, distances = [], []
        for rows in torch.arange(len(means), device=means.device).split(ROWS):
            apart = squared_distances(means[rows], means) + spreads[rows, None] + spreads
            apart[torch.arange(len(rows), device=rows.device), rows] = torch.inf
            least = apart.min(dim=1)
            nearest.append(least.indices)
            distances.append(least.values)
        other, own = torch.cat(nearest), torch.arange(len(means), device=means.device)
        joins = (other[other] == own) & (torch.cat(distances) < limit)
        if not joins.any():
            break
        into = torch.where(joins, torch.minimum(own, other), own).unique(return_inverse=True)[1]
        total = _sums(weights, into)
        mean = _sums(means * weights[:, None], into) / total[:, None]
        around = spreads + (means - mean[into]).square().sum(dim=1)
        spreads = _sums(weights * around, into) / total
        means, weights, labels = mean, total, into[labels]
    return labels


def _sums(values: Tensor, groups: Tensor) -> Tensor:  # [S, ...], [S] -> [G, ...]
    """Adds the rows of each group."""
    sums = values.new_zeros(int(groups.max()) + 1, *values.shape[1:])
    return sums.index_add_(0, groups, values)


def squared_distances(one: Tensor, other: Tensor) -> Tensor:  # [A, D], [B, D] -> [A, B]
    """Computes the squared distances between the rows of two tensors."""
    squares = other.square().sum(dim=1)
    return one.square().sum(dim=1, keepdim=True) + squares - 2 * one @ other.T


def fourier_features(xyz: Tensor) -> Tensor:  # [S, 3] -> [S, 24]
    """Computes sines and cosines of positions, so that a dot product can be sharp in space."""
    phases = (xyz[:, :, None] * 2.0 ** torch.arange(OCTAVES, device=xyz.device)).flatten(1)
    return torch.cat([phases.sin(), phases.cos()], dim=1)
