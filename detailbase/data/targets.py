"""What superpoints belong to: the objects that phrases name, and ScanNet's classes."""

from __future__ import annotations

import torch
from torch import Tensor

from detailbase.descriptions.references import Phrase
from detailbase.scans.clouds import Cloud


class Shares:
    """How many points each superpoint has of each object."""

    def __init__(self, cloud: Cloud) -> None:
        self.ids, self.counts = count_labels(cloud, cloud.instances)
        """[objects], ``NONE`` among them, and [S, objects]."""

    def has(self, phrase: Phrase) -> bool:
        """Whether any of a phrase's objects has a point."""
        return bool(self._named(phrase).any())

    def target(self, phrase: Phrase) -> Tensor:  # [S] float
        """1 at superpoints of which more than half is the phrase's."""
        inside = self.counts[:, self._named(phrase)].sum(dim=1)
        return (2 * inside > self.counts.sum(dim=1)).float()

    def _named(self, phrase: Phrase) -> Tensor:  # [objects] bool
        return torch.isin(self.ids, self.ids.new_tensor(phrase.object_ids))


def majority(cloud: Cloud, labels: Tensor) -> Tensor:  # [S]
    """The label of most of each superpoint's points; ``NONE`` counts as one.

    Args:
        cloud: Of N points.
        labels: [N], those of the points: their classes, or their objects.
    """
    distinct, counts = count_labels(cloud, labels)
    return distinct[counts.argmax(dim=1)]


def count_labels(cloud: Cloud, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct labels [A] of a cloud's points, and how many of each a superpoint has [S, A]."""
    distinct, columns = labels.unique(return_inverse=True)
    pairs = cloud.superpoints * len(distinct) + columns
    counts = torch.bincount(pairs, minlength=cloud.num_superpoints * len(distinct))
    return distinct, counts.view(-1, len(distinct))
