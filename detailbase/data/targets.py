"""Training targets of superpoints: the objects that phrases name, and ScanNet's classes."""

from __future__ import annotations

import torch
from torch import Tensor

from detailbase.descriptions.references import Phrase
from detailbase.scans.clouds import Cloud


class Shares:
    """Counts of the points that each superpoint has of each object."""

    def __init__(self, cloud: Cloud) -> None:
        self.ids, self.counts = count_labels(cloud, cloud.instances)
        """Object ids [A], ``NONE`` among them, and counts [S, A]."""

    def has(self, phrase: Phrase) -> bool:
        """Tells whether any of a phrase's objects has a point."""
        return bool(self._columns(phrase).any())

    def target(self, phrase: Phrase) -> Tensor:  # [S] float
        """Marks the superpoints of which more than half belongs to the phrase."""
        inside = self.counts[:, self._columns(phrase)].sum(dim=1)
        return (2 * inside > self.counts.sum(dim=1)).float()

    def _columns(self, phrase: Phrase) -> Tensor:  # [A] bool
        return torch.isin(self.ids, self.ids.new_tensor(phrase.object_ids))


def majority(cloud: Cloud, labels: Tensor) -> Tensor:  # [S]
    """Finds the label of most of each superpoint's points; ``NONE`` counts as one.

    Args:
        cloud: A cloud of N points.
        labels: [N] classes or objects of the points.
    """
    distinct, counts = count_labels(cloud, labels)
    return distinct[counts.argmax(dim=1)]


def count_labels(cloud: Cloud, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the distinct labels [A] of a cloud's points, and counts by superpoint [S, A]."""
    distinct, columns = labels.unique(return_inverse=True)
    pairs = cloud.superpoints * len(distinct) + columns
    counts = torch.bincount(pairs, minlength=cloud.num_superpoints * len(distinct))
    return distinct, counts.view(-1, len(distinct))
