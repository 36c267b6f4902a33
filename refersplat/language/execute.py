"""Executes the description of a sentence on the groups of a scene."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from refer3d.language import COLORS, Description, Grade, Rank, Relation
from refersplat.cameras import Camera
from refersplat.language.phrases import COLOR_WORDS, Phrase
from refersplat.language.places import Places
from refersplat.language.vocabulary import Vocabulary

LEAST_NAMED = 0.5
"""Probability from which on a name means a group: the calibration balances its errors there."""
LEAST_CLAUSE = 0.02
"""The same of a clause that tells a use or a property: it may share no word with the sentences of
its object."""
LEAST_BACKGROUND = 0.9
"""The same of a name that the sentences have for something beside the groups."""
LEAST_FIT = 0.2
"""Degree from which on a colour, a relation or an exclusion holds."""
REJECT = 2.0
"""Value of ``match.reject`` at which these probabilities hold."""


class Result(NamedTuple):
    """The groups that a sentence means."""

    groups: tuple[int, ...]
    probabilities: Tensor
    """[G], how probably each group is meant."""
    trace: tuple[str, ...]
    """Lines that tell how they were found."""


@dataclass
class Scores:
    """Degrees to which the G groups fit a description."""

    named: Tensor
    """[G] probability that the phrase names the group."""
    fits: Tensor
    """[M, G] degree to which each of M further statements holds."""
    least: float
    """Least probability of a name."""

    @property
    def total(self) -> Tensor:  # [G]
        """The product of all."""
        return self.named * self.fits.prod(dim=0)

    @property
    def holds(self) -> Tensor:  # [G] bool
        """Whether no statement rules a group out."""
        return (self.fits >= LEAST_FIT).all(dim=0)

    @property
    def possible(self) -> Tensor:  # [G] bool
        """Whether nothing rules a group out."""
        return self.holds & (self.named >= self.least)


@dataclass
class Executor:
    """Executes descriptions on one scene, from one camera."""

    vocabulary: Vocabulary
    places: Places
    names: Sequence[str]
    """A short name of each group, for the trace."""
    colors: Tensor
    """[G, 11] degree to which each group has each of ``COLORS``."""
    camera: Camera | None = None
    """None leaves statements out that need a viewpoint."""
    without: Collection[str] = ()
    reject: float = REJECT
    trace: list[str] = field(default_factory=list)

    def run(self, item: Description) -> Result:
        """Executes a description and all below it."""
        all_ = [phrase for d in item.phrases() for phrase in (Phrase.of(d), Phrase.content_of(d))]
        phrases = [phrase for phrase in dict.fromkeys(all_) if phrase]
        self.named = dict(zip(phrases, self.vocabulary.probabilities(phrases), strict=True))
        groups, probabilities = self.select(item)
        return Result(tuple(groups), probabilities, tuple(self.trace))

    # Choice

    def select(self, item: Description) -> tuple[list[int], Tensor]:
        """Returns the groups that a description means, and the probability of each of the G."""
        if item.parts:
            return self._select_parts(item)
        scores = self.scores(item)
        weights = torch.where(scores.possible, scores.total, 0)
        if item.among:
            weights = weights * self._members(item.among)
        for rank in self._used("size", item.ranks):
            weights = weights * self.rank(rank, weights, item.count)
        ordered = weights.argsort(descending=True, stable=True).tolist()
        groups = [group for group in ordered if weights[group] > 0.05 * scores.least]
        if item.count is None:
            if not groups and scores.least == self._least(LEAST_CLAUSE):
                groups = [int(scores.total.argmax())]
            # A clause tells one thing's use; only those as probable as a name are told together.
            fits = scores.fits.prod(dim=0)
            groups = [
                g
                for g in groups
                if g == groups[0] or (scores.named[g] >= LEAST_NAMED and fits[g] > fits.max() / 2)
            ]
        else:
            groups = groups[: item.count]
            if 0 < len(groups) < item.count and not item.ranks:  # the sentence knows the number
                order = torch.where(scores.holds, scores.total, -1).argsort(descending=True)
                groups += [g for g in order.tolist() if g not in groups and scores.holds[g]]
                groups = groups[: item.count]
        self._note(item, weights if weights.any() else scores.total, groups)
        return sorted(groups), weights

    def _select_parts(self, item: Description) -> tuple[list[int], Tensor]:
        selected = [self.select(part) for part in item.parts]
        total = torch.stack([probabilities for _, probabilities in selected]).amax(dim=0)
        if item.count == 1:  # any of them
            found = [groups for groups, _ in selected if groups]
            best = max(found, key=lambda groups: float(total[groups].max()), default=[])
            return best, total
        return sorted({group for groups, _ in selected for group in groups}), total

    def _members(self, item: Description) -> Tensor:  # [G]
        """Membership in the set that a rank chooses from."""
        groups, _ = self.select(item)
        members = torch.zeros(self.places.count)
        members[groups] = 1
        return members

    def scores(self, item: Description, base: Tensor | float = 1.0) -> Scores:
        """Returns all but ranks and number; sizes are compared among the ``base``, [G] weights."""
        ones = torch.ones(self.places.count)
        phrase = Phrase.of(item)
        named, least = ones, 0.0
        if not _is_measured(item):
            named = self.named[phrase]
            if content := Phrase.content_of(item):
                named = torch.minimum(named, self.named[content])
            is_clause = phrase.kind == "clause"
            least = LEAST_CLAUSE if is_clause else LEAST_NAMED
            if phrase.head in self.vocabulary.background:
                least = LEAST_BACKGROUND
            least = self._least(least)
        fits = [ones]
        for color in self._used("color", item.colors):
            fits.append(self.colors[:, list(COLORS).index(color)])
        for relation in self._used("relation", item.relations):
            fits.append(self.relation(relation, is_named=bool(item.noun)))
        for excluded in item.excluded:
            among = named * torch.stack(fits).prod(dim=0)
            fits.append(1 - self._excluded(excluded, among))
        for grade in self._used("size", item.sizes):
            fits.append(self.size(grade, base * named * torch.stack(fits).prod(dim=0)))
        return Scores(named, torch.stack(fits), least)

    def _least(self, probability: float) -> float:
        """Shifts a threshold's log odds as ``match.reject`` asks."""
        shift = REJECT - self.reject
        return float((torch.tensor(probability).logit() + shift).sigmoid())

    def _used(self, part: str, statements: Sequence) -> Sequence:
        return () if part in self.without else statements

    # Statements

    def _excluded(self, item: Description, among: Tensor) -> Tensor:  # [G]
        """Degree to which a description that must not hold does, decided rather than doubted.

        Args:
            item: The description.
            among: [G] weights of the groups that it is excluded from.
        """
        if item.parts:
            return torch.stack([self._excluded(part, among) for part in item.parts]).amax(dim=0)
        total = self.scores(item, among).total
        for rank in self._used("size", item.ranks):
            total = total * self.rank(rank, total * among, 1)
        # "Not food" leaves what is food least, though no sentence may have said "food".
        total = total / total.max().clamp(min=0.3)
        return total.pow(4) / (total.pow(4) + (1 - total).pow(4))

    def size(self, grade: Grade, weights: Tensor) -> Tensor:  # [G]
        """Degree to which a measure exceeds that of the objects that may be meant."""
        values = grade.direction * self.places.measure(grade.measure, self.camera)
        mean = (weights * values).sum() / weights.sum().clamp(min=1e-6)
        spread = (values - values.mean()).square().mean().sqrt().clamp(min=1e-6)
        return 0.3 + 0.7 * (2 * (values - mean) / spread).sigmoid()

    def relation(self, relation: Relation, is_named: bool = False) -> Tensor:  # [G]
        """Degree to which each group is in a relation to what a sentence mentions.

        An anchor that is no group, such as the ground, tells nothing. What is named may be inside
        itself: "the food in a can".
        """
        nothing = torch.ones(self.places.count)
        found = [self.anchor(anchor) for anchor in relation.anchors]
        anchors = [anchor for anchor in found if anchor is not None]
        if len(anchors) < len(found):
            return nothing
        if relation.kind in ("between", "closer", "farther"):
            if len(anchors) == 1:  # "between the boxes"
                anchors *= 2
            if len(anchors) != 2:
                return nothing
            degree = self.places.triple(relation.kind)
            result = (degree * anchors[0][:, None] * anchors[1]).amax(dim=(1, 2))
        else:
            degree = self.places.relation(relation.kind, self.camera)
            if not anchors:
                return degree.amax(dim=1)
            result = (degree * anchors[0]).amax(dim=1)
        if all(anchor.sum() < 1.5 for anchor in anchors):  # nothing is related to itself
            for anchor in anchors:
                result = result * (anchor < 0.99)
        return (
            torch.maximum(result, anchors[0]) if relation.kind == "inside" and is_named else result
        )

    def anchor(self, item: Description) -> Tensor | None:  # [G]
        """Degree to which a relation starts from each group, 1 at the best; None for none."""
        if item == Description(count=item.count):
            return torch.ones(self.places.count)  # "anything"
        if not item.parts and Phrase.of(item).head in self.vocabulary.background:
            self.trace.append(f"{item.text}: no object of the scene")
            return None
        groups, total = self.select(item)
        best = total[groups].max() if groups else torch.zeros(())
        return (total / best).clamp(max=1) if best > 0 else None

    def rank(self, rank: Rank, weights: Tensor, count: int | None) -> Tensor:  # [G]
        """Returns the probability of each group to stand at a place of the order of all G.

        A group counts in the order with its weight, so the places of the others are uncertain: the
        number of weighted groups before one is a sum of independent events.
        """
        itself = torch.zeros(self.places.count, dtype=torch.bool)
        if rank.anchor:
            anchor = self.anchor(rank.anchor)
            if anchor is None:
                return torch.ones_like(weights)
            itself = anchor >= 0.99
            measure = -self.places.distances()[0][:, itself].amin(dim=1)
        else:
            measure = self.places.measure(rank.grade.measure, self.camera)
        if measure.isnan().all():
            self.trace.append(f"{rank.grade}: needs a camera")
            return torch.ones_like(weights)
        values, position = rank.grade.direction * measure, rank.position
        if position < 0:
            values, position = -values, 1
        weights = (weights / weights.max().clamp(min=1e-6)).masked_fill(itself, 0)
        result = torch.zeros_like(weights)
        before = torch.zeros(len(weights) + 1)  # probability of each number of groups before
        before[0] = 1
        for group in values.argsort(descending=True).tolist():
            if not values[group].isnan():
                result[group] = before[position - 1 : position - 1 + (count or 1)].sum()
                before = before * (1 - weights[group]) + before.roll(1) * weights[group]
        return result.masked_fill(itself, 0)

    def _note(self, item: Description, weights: Tensor, groups: Sequence[int]) -> None:
        best = weights.argsort(descending=True)[:3].tolist()
        shown = ", ".join(f"{self.names[group]} {weights[group]:.2f}" for group in best)
        chosen = ", ".join(self.names[group] for group in groups) or "nothing"
        label = str(item).partition("\n")[0]
        self.trace.append(f"{label}: {shown} → {chosen}")


def _is_measured(item: Description) -> bool:
    """Whether nothing but colours and sizes is said of the object itself."""
    words = {*item.text.split()} - {"and", "or"}
    measured = {word for word in words if word in COLOR_WORDS}
    return not item.noun and len(words - measured) <= len(item.sizes)
