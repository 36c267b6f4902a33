"""Groups of Gaussians, one for each object that training sentences name.

The masks alone tell which sentences belong together and which Gaussians they mean. A category is
not needed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from refer3d.runs.device import to_device
from refersplat.data.supervised import SupervisedView
from refersplat.language.attributes import GroupAttributes, measure_groups
from refersplat.ops import BlendMatrix
from refersplat.splats.gaussians import Gaussians

SURE = 6.0
"""Logit of a Gaussian that lies inside the masks with all its pixels."""
SAME = 0.5
"""Overlap at which two sets of sentences mean the same object."""
REFINE_LR = 0.3
LEAST_TRUST = 0.01
"""Weight of a mask that contradicts all others."""
LEAST_SEEN = 1e-3
"""Pixels that a Gaussian must have filled in the views of an object for its share to count."""

Sets = tuple[tuple[int, ...], ...]
"""Rows of training sentences, those of one object together."""


@dataclass(frozen=True)
class Groups:
    """Sets of Gaussians, and the training sentences of each."""

    logits: Tensor
    """[N, G] logits of the Gaussians' memberships."""
    sentences: Sets
    """Rows of each group's training sentences."""
    attributes: GroupAttributes
    """Places, sizes and colours of the groups."""

    @property
    def count(self) -> int:
        """G."""
        return self.logits.shape[1]

    def mean(self, responses: Tensor) -> Tensor:  # [B, N] -> [B, G]
        """Averages per-Gaussian responses over each group."""
        member = self.logits.sigmoid()
        member = torch.where(member > 0.5, member, 0)
        return responses @ member / member.sum(dim=0).clamp(min=1e-6)

    def state_dict(self) -> dict[str, Any]:
        """Returns tensors and plain values."""
        return {
            "logits": self.logits.half(),
            "sentences": [list(rows) for rows in self.sentences],
            "facts": asdict(self.attributes),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any], device: torch.device | str = "cpu") -> Groups:
        """Rebuilds groups from :meth:`state_dict`; only the memberships go to ``device``."""
        sentences = tuple(tuple(rows) for rows in state["sentences"])
        return cls(state["logits"].float().to(device), sentences, GroupAttributes(**state["facts"]))


class Votes(NamedTuple):
    """Votes of the masks on each Gaussian and object."""

    inside: Tensor
    """[N, G] pixels that the Gaussian fills inside the object's masks."""
    seen: Tensor
    """[N, G] pixels that it fills in the views where the object has a mask."""

    @property
    def share(self) -> Tensor:  # [N, G]
        """Share of the Gaussian's pixels that lies inside."""
        return self.inside / self.seen.clamp(min=LEAST_SEEN)


class Masks(NamedTuple):
    """Masks of the objects in one view."""

    objects: Tensor
    """[objects] int64, indices into ``Sets`` of the objects that have a mask here."""
    labels: Tensor
    """[objects, H, W] in 0..1, the mean where an object has several masks."""
    blend: BlendMatrix


def build_groups(
    views: Sequence[SupervisedView],
    gaussians: Gaussians,
    blends: Callable[[SupervisedView], BlendMatrix],
    refine_steps: int = 150,
    seed: int = 0,
) -> Groups | None:
    """Groups the training sentences by object, and assigns Gaussians to each object.

    A view without a mask of an object tells nothing about it: the object may be hidden there, or
    not annotated. So a Gaussian belongs to an object as far as its pixels lie inside the object's
    masks where there are any. Masks that contradict the others, as a detector's sometimes do, count
    less.

    Args:
        views: The training views with their masks.
        gaussians: The trained scene.
        blends: Returns the blend matrix of a view.
        refine_steps: Steps that fit the memberships to the masks; votes alone are soft at edges.
        seed: Seed of the views' order in these steps.

    Returns:
        None where every sentence belongs to several objects, so that none separates them.
    """
    sets = join_sentences(
        [[t.sentences for t in view.targets for _ in range(t.count)] for view in views]
    )
    if not sets:
        return None
    votes, _ = _vote(_masks(views, blends, sets), gaussians.means, len(sets))
    sets, votes = merge_same(sets, votes)
    votes, trust = _vote(_masks(views, blends, sets), gaussians.means, len(sets), votes.share)
    logits = SURE * (2 * votes.share - 1)
    if refine_steps:
        rng = np.random.default_rng(seed)
        epochs = -(-refine_steps // len(views))
        order = np.concatenate([rng.permutation(len(views)) for _ in range(epochs)])
        order = order[:refine_steps]
        masks = _masks((views[index] for index in order), blends, sets)
        logits = _refine(logits, masks, [trust[index] for index in order])
    logits = torch.where(votes.seen > LEAST_SEEN, logits.clamp(-2 * SURE, 2 * SURE), -SURE)
    up = torch.stack([view.camera.world_to_camera[1, :3] for view in views]).mean(dim=0)
    visible = torch.where(logits > 0, votes.inside, 0)
    return Groups(logits, sets, measure_groups(gaussians, visible, -up.to(gaussians.means.device)))


def join_sentences(views: Sequence[Sequence[Sequence[int]]]) -> Sets:
    """Joins sentences that some view gives to the same object, directly or by way of others.

    A sentence that one view gives to several objects fits them all, and joins none of them.

    Args:
        views: Rows of the sentences of each view's objects.
    """
    shared: set[int] = set()
    for objects in views:
        rows_here = list(itertools.chain.from_iterable(set(rows) for rows in objects))
        shared |= {row for row in rows_here if rows_here.count(row) > 1}
    sets: list[set[int]] = []
    for rows in itertools.chain.from_iterable(views):
        joined = set(rows) - shared
        separate = []
        for other in sets:
            if joined & other:
                joined |= other
            else:
                separate.append(other)
        sets = [*separate, joined] if joined else separate
    return tuple(sorted(tuple(sorted(rows)) for rows in sets))


def merge_same(sets: Sets, votes: Votes) -> tuple[Sets, Votes]:
    """Merges sets of sentences that mean the same Gaussians."""
    overlaps = _overlaps(votes)
    label = torch.arange(len(sets))
    for one, other in (overlaps > SAME).nonzero().tolist():
        label[label == label[other]] = int(label[one])
    kept = label.unique().tolist()
    together = [(label == index).nonzero()[:, 0].tolist() for index in kept]
    merged = tuple(
        tuple(sorted(itertools.chain.from_iterable(sets[index] for index in rows)))
        for rows in together
    )
    sums = (torch.stack([x[:, rows].sum(dim=1) for rows in together], dim=1) for x in votes)
    return merged, Votes(*sums)


def _overlaps(votes: Votes) -> Tensor:  # [G, G]
    """Intersection over union of each two sets' Gaussians, in views that have masks of both."""
    count = votes.inside.shape[1]
    overlaps = votes.inside.new_zeros(count, count)
    for one, other in itertools.combinations(range(count), 2):
        weight = votes.seen[:, [one, other]].amin(dim=1)
        shares = votes.share[:, [one, other]]
        union = (weight * shares.amax(dim=1)).sum()
        overlaps[one, other] = (weight * shares.amin(dim=1)).sum() / union.clamp(min=LEAST_SEEN)
    return overlaps


def _masks(
    views: Iterable[SupervisedView], blends: Callable[[SupervisedView], BlendMatrix], sets: Sets
) -> Iterator[Masks]:
    """Yields each view's masks, those of one object averaged."""
    owner = {row: index for index, rows in enumerate(sets) for row in rows}
    for view in views:
        owned: dict[int, list[int]] = {}
        for index, target in enumerate(view.targets):
            for group in {owner[row] for row in target.sentences if row in owner}:
                owned.setdefault(group, []).append(index)
        blend = blends(view)
        device = blend.weights.device
        labels = [view.masks(rows, device).float().mean(dim=0) for rows in owned.values()]
        nothing = torch.zeros(0, blend.height, blend.width, device=device)
        objects = to_device(torch.tensor(list(owned), dtype=torch.int64), device)
        yield Masks(objects, torch.stack(labels) if labels else nothing, blend)


@torch.no_grad()
def _agreement(masks: Masks, share: Tensor) -> Tensor:  # [objects]
    """Soft IoU of each mask with the votes of all views."""
    expected = masks.blend.blend(share[:, masks.objects].contiguous())
    both = torch.minimum(expected, masks.labels).sum(dim=(1, 2))
    either = torch.maximum(expected, masks.labels).sum(dim=(1, 2))
    return both / either.clamp(min=1)


def _vote(
    views: Iterable[Masks],
    like: Tensor,  # [N, 3]
    objects: int,
    share: Tensor | None = None,  # [N, objects]
) -> tuple[Votes, list[Tensor]]:
    """Sums each Gaussian's pixels, weighted by the masks' agreement with ``share``.

    Returns:
        votes: Over all views.
        trust: [objects] weights of the masks, for each view.
    """
    inside, seen = like.new_zeros(2, len(like), objects)
    trust = []
    for masks in views:
        everywhere = masks.labels.new_ones(1, *masks.labels.shape[1:])
        filled = masks.blend.collect(torch.cat([masks.labels, everywhere]))
        weights = like.new_ones(len(masks.objects))
        if share is not None:
            weights = _agreement(masks, share).clamp(min=LEAST_TRUST)
        inside[:, masks.objects] += weights * filled[:, :-1]
        seen[:, masks.objects] += weights * filled[:, -1:]
        trust.append(weights)
    return Votes(inside, seen), trust


def _refine(
    logits: Tensor,  # [N, G]
    views: Iterable[Masks],
    trust: Sequence[Tensor],
) -> Tensor:  # [N, G]
    """Fits the memberships to the masks by rendering them."""
    logits = logits.clone().requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=REFINE_LR)
    for masks, weights in zip(views, trust, strict=True):
        rendered = masks.blend.blend(logits[:, masks.objects])
        errors = F.binary_cross_entropy_with_logits(rendered, masks.labels, reduction="none")
        loss = (weights * errors.mean(dim=(1, 2))).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return logits.detach()
