"""Which superpoints belong to one object, and what they are together."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from detailbase.model.descriptors import NUM_FACTS, facts, places
from detailbase.model.norm import BatchNorm

HIDDEN = 64
OCTAVES = 4
ROWS = 2048
"""Superpoints that are compared with all others at once; training supervises at most as many."""


class Asked(NamedTuple):
    """Which superpoints of a scene are of the same object as some of them."""

    rows: Tensor
    """[A] those that are asked about, in larger scenes not all."""
    logits: Tensor
    """[A, S]."""


class Objects(nn.Module):
    """Gives each superpoint, beside its own features, those of the object that it is a part of.

    Superpoints move in a space of their places and a few learned dimensions, and those that come
    near each other are one object. The published network has nothing like it; there every
    superpoint decides alone whether it belongs to what a word names.
    """

    def __init__(self, channels: int, dims: int) -> None:
        """Makes the layers.

        Args:
            channels: C, the width of superpoint features.
            dims: Learned dimensions of the space.
        """
        super().__init__()
        self.channels = 3 * channels
        """Of what comes out."""
        self.move = nn.Sequential(
            nn.Linear(channels, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 3 + dims)
        )
        self.scale = nn.Parameter(torch.ones(3 + dims))
        self.nearness = nn.Parameter(torch.tensor(2.0))
        known = NUM_FACTS + 6 * OCTAVES
        self.facts = nn.Sequential(
            BatchNorm(known, affine=False),
            *(nn.Linear(known, 2 * channels), nn.ReLU(), nn.Linear(2 * channels, channels)),
            nn.LayerNorm(channels),
        )

    def forward(
        self,
        features: Tensor,  # [S, C]
        sums: Tensor,  # [S, 13]
        starts: Sequence[int],
    ) -> tuple[Tensor, tuple[Asked, ...] | None]:  # [S, 3 C]
        """Finds the objects of each scene.

        Args:
            features: Of superpoints.
            sums: Their moments.
            starts: Each scene's first superpoint, then how many there are.

        Returns:
            features: Each superpoint's own, the mean over its object, the facts of its object.
            asked: What each scene's superpoints say of each other; None in evaluation.
        """
        moved = self.move(features)
        # Places and their squares need all their digits, in mixed precision, too.
        with torch.autocast(features.device.type, enabled=False):
            means, known, asked = self._find(features.float(), moved.float(), sums, starts)
        found = torch.cat([features, means, self.facts(known)], dim=1)
        return found, tuple(asked) if self.training else None

    def _find(
        self,
        features: Tensor,  # [S, C]
        moved: Tensor,  # [S, 3 + dims]
        sums: Tensor,  # [S, 13]
        starts: Sequence[int],
    ) -> tuple[Tensor, Tensor, list[Asked]]:  # [S, C], [S, 37]
        """Each superpoint's object: the mean of its features, its facts; and what was asked."""
        moved = torch.cat([moved[:, :3] + places(facts(sums)), moved[:, 3:]], dim=1) * self.scale
        asked, means, united = [], [], []
        for start, end in itertools.pairwise(starts):
            here, weights = moved[start:end], sums[start:end]
            weighted = features[start:end] * weights[:, -1:]
            for some in here.split(ROWS):
                # Of a large scan nothing is kept for the backward pass: it is computed again.
                mean, sum_ = (
                    checkpoint(self._unite, some, here, weighted, weights, use_reentrant=False)
                    if end - start > ROWS
                    else self._unite(some, here, weighted, weights)
                )
                means.append(mean)
                united.append(sum_)
            if self.training:
                step = max(1, -(-(end - start) // ROWS))
                rows = torch.arange(0, end - start, step, device=here.device)
                asked.append(Asked(rows, self.nearness - distances(here[rows], here)))
        known = facts(torch.cat(united))
        known = torch.cat([known, waves(places(known))], dim=1)
        return torch.cat(means), known, asked

    def _unite(
        self,
        some: Tensor,  # [A, 3 + dims]
        here: Tensor,  # [S, 3 + dims]
        weighted: Tensor,  # [S, C]
        weights: Tensor,  # [S, 13]
    ) -> tuple[Tensor, Tensor]:  # [A, C], [A, 13]
        """The mean features of some superpoints' objects, and their moments."""
        # Only what belongs together teaches this, not what is answered with it.
        together = (self.nearness - distances(some, here)).detach().sigmoid()
        size = (together @ weights[:, -1:]).clamp(min=1)
        return together @ weighted / size, together @ weights


def distances(one: Tensor, other: Tensor) -> Tensor:  # [A, D], [B, D] -> [A, B]
    """Squared distances."""
    squares = other.square().sum(dim=1)
    return one.square().sum(dim=1, keepdim=True) + squares - 2 * one @ other.T


def waves(xyz: Tensor) -> Tensor:  # [S, 3] -> [S, 24]
    """Sines and cosines of places, so that a dot product can be sharp in space."""
    phases = (xyz[:, :, None] * 2.0 ** torch.arange(OCTAVES, device=xyz.device)).flatten(1)
    return torch.cat([phases.sin(), phases.cos()], dim=1)
