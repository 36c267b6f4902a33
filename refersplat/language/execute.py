"""Executes the description of a sentence on the groups of a scene."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from refer3d.language import COLORS, Description, Grade, Rank, Relation
from refersplat.cameras import Camera
from refersplat.language.phrases import COLOR_WORDS, Phrase, content_words, is_property
from refersplat.language.places import Places
from refersplat.language.vocabulary import Vocabulary

LEAST_NAMED = 0.5
"""Probability from which on a name or an adjective means a group: the calibration balances its
errors there."""
LEAST_CLAUSE = 0.02
"""The same of a clause that tells a use or a property: it may share no word with the sentences of
its object."""
LEAST_BACKGROUND = 0.9
"""The same of a name that the sentences have for something beside the groups."""
LEAST_FIT = 0.2
"""Degree from which on a colour, a relation or an exclusion holds."""
STARTS = 0.99
"""Degree from which on a relation starts from a group for certain."""
ALIKE = 0.97
"""Share of the best group's probability from which on another may as well be the one meant."""
VIEWED = ("left", "right", "front", "behind", "closer", "farther")
"""Relations that need a camera; the last two with one anchor only."""
SYNONYM = 0.95
"""Factor of what is called by other words beside what is called by the same: a notebook computer
beside a notebook. Less than ``ALIKE``."""
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
    is_vain: bool = False
    """Whether a relation starts from what is not there, and so tells nothing."""

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
    is_complete: bool = True
    """Whether each of the parts of what was asked for has been found."""

    def run(self, item: Description) -> Result:
        """Executes a description and all below it."""
        if self._says_nothing(item):
            self.trace.append(f"{_label(item)}: tells no object from another → nothing")
            return Result((), torch.zeros(self.places.count), tuple(self.trace))
        all_ = [phrase for d in item.phrases() for phrase in (Phrase.of(d), Phrase.content_of(d))]
        phrases = [phrase for phrase in dict.fromkeys(all_) if phrase]
        self.named = dict(zip(phrases, self.vocabulary.probabilities(phrases), strict=True))
        groups, probabilities = self.select(item)
        self.is_complete &= bool(groups)
        return Result(tuple(groups), probabilities, tuple(self.trace))

    def _says_nothing(self, item: Description) -> bool:
        """Whether words like "that" or "two things" leave open which of the objects are meant."""
        facts = (item.colors, item.relations, item.ranks, item.among, item.excluded, item.parts)
        if any(facts) or content_words(item.text, item.noun) or item.count == 0:
            return False
        return bool(item.text) or (item.count is not None and item.count < self.places.count)

    # Choice

    def select(self, item: Description) -> tuple[list[int], Tensor]:
        """Returns the groups that a description means, and the probability of each of the G."""
        if item.parts:
            return self._select_parts(item)
        if item.count == 0:
            self.trace.append(f"{_label(item)}: none of them is asked for → nothing")
            return [], torch.zeros(self.places.count)
        base = self._members(item)
        return self._choose(item, self.scores(item, base), base)

    def _choose(
        self, item: Description, scores: Scores, base: Tensor, is_excluded: bool = False
    ) -> tuple[list[int], Tensor]:
        """Chooses as many groups as a description without parts means.

        Args:
            item: The description.
            scores: Its scores.
            base: [G] weights of the groups to choose from.
            is_excluded: Whether it must not hold; then all that may be the one meant are chosen.
        """
        weights = torch.where(scores.possible, scores.total, 0) * base
        for rank in self._used("size", item.ranks):
            weights = weights * self.rank(rank, weights, item.count)
        ordered = weights.argsort(descending=True, stable=True).tolist()
        groups = [group for group in ordered if weights[group] > 0.05 * scores.least]
        if item.count is None:
            if not groups and not is_excluded and scores.least == self._least(LEAST_CLAUSE):
                groups = [int(scores.total.argmax())]
            # A clause tells one thing's use; only those as probable as a name are told together.
            fits = scores.fits.prod(dim=0)
            groups = [
                g
                for g in groups
                if g == groups[0] or (scores.named[g] >= LEAST_NAMED and fits[g] > fits.max() / 2)
            ]
        alike = [group for group in groups if weights[group] >= ALIKE * weights[groups[0]]]
        if item.count is not None:
            groups = alike if is_excluded and item.count == 1 else groups[: item.count]
        others = [f"or {self.names[group]}" for group in alike if group not in groups]
        if 0 < len(groups) < (item.count or 0):
            others = [f"{len(groups)} instead of {item.count}"]
        label = f"not {_label(item)}" if is_excluded else _label(item)
        self._note(label, weights if weights.any() else scores.total, groups, others)
        return sorted(groups), weights

    def _select_parts(self, item: Description) -> tuple[list[int], Tensor]:
        selected = [self.select(part) for part in item.parts]
        self.is_complete &= all(groups for groups, _ in selected)
        total = torch.stack([probabilities for _, probabilities in selected]).amax(dim=0)
        if item.count == 1:  # any of them
            found = [groups for groups, _ in selected if groups]
            best = max(found, key=lambda groups: float(total[groups].max()), default=[])
            return best, total
        return sorted({group for groups, _ in selected for group in groups}), total

    def _members(self, item: Description) -> Tensor:  # [G]
        """1 for the groups that a description chooses among, else 0."""
        if not item.among:
            return torch.ones(self.places.count)
        groups, _ = self.select(item.among)
        members = torch.zeros(self.places.count)
        members[groups] = 1
        return members

    def scores(self, item: Description, base: Tensor, is_denied: bool = False) -> Scores:
        """Returns all but ranks and number; sizes are compared among the ``base``, [G] weights.

        Args:
            item: The description.
            base: [G] weights of the groups to choose from.
            is_denied: Whether the description must not hold.
        """
        ones = torch.ones(self.places.count)
        phrase = Phrase.of(item)
        named, least = ones, 0.0
        if not _is_measured(item):
            literal = self.vocabulary.called(phrase)
            named = self.named[phrase] * torch.where(literal | ~literal.any(), 1.0, SYNONYM)
            if content := Phrase.content_of(item):
                named = torch.minimum(named, self.named[content])
            # An adjective alone must be as probable as a name; beside other statements it chooses.
            is_bare = is_property(item) and not (item.relations or item.ranks or item.among)
            is_clause = phrase.kind == "clause" and not is_bare
            least = LEAST_CLAUSE if is_clause else LEAST_NAMED
            if phrase.head in self.vocabulary.background:
                least = LEAST_BACKGROUND
            least = self._least(least)
        fits = [ones]
        if colors := self._used("color", item.colors):
            shown = self.colors[:, [list(COLORS).index(color) for color in colors]].T
            words = item.text.split()
            is_either = any(w == "or" and words[i] in COLOR_WORDS for i, w in enumerate(words[1:]))
            fits += [shown.amax(dim=0)] if is_either else [*shown]
        is_vain = False
        for relation in self._used("relation", item.relations):
            degree = self.relation(relation, bool(item.noun), is_denied)
            if degree is not None:
                fits.append(degree)
            else:
                is_vain = True
        for excluded in item.excluded:
            fits.append(self._excluded(excluded, base * named * torch.stack(fits).prod(dim=0)))
        for grade in self._used("size", item.sizes):
            fits.append(self.size(grade, base * named * torch.stack(fits).prod(dim=0)))
        return Scores(named, torch.stack(fits), least, is_vain)

    def _least(self, probability: float) -> float:
        """Shifts a threshold's log odds as ``match.reject`` asks."""
        shift = REJECT - self.reject
        return float((torch.tensor(probability).logit() + shift).sigmoid())

    def _used(self, part: str, statements: Sequence) -> Sequence:
        return () if part in self.without else statements

    # Statements

    def _excluded(self, item: Description, among: Tensor) -> Tensor:  # [G]
        """Degree to which groups do not fit a description: 0 for those that it would find.

        Args:
            item: The description.
            among: [G] weights of the groups that it is excluded from; what has no noun is one of
                these: "not the tall one".
        """
        if item.parts:
            return torch.stack([self._excluded(part, among) for part in item.parts]).amin(dim=0)
        if item.noun:
            among = torch.ones_like(among)
        elif not item.ranks:  # "not the red one" is not red
            item = replace(item, count=None)
        base = among * self._members(item)
        scores = self.scores(item, base, is_denied=True)
        if scores.is_vain:
            self.trace.append(f"not {_label(item)}: nothing to relate it to → nothing")
            return torch.ones_like(among)
        groups, _ = self._choose(item, scores, base, is_excluded=True)
        # Of several that are left, "the thing that is not food" is one that is hardly food.
        degree = 1 - 4 * scores.total.clamp(max=0.5).pow(4)
        degree[groups] = 0
        return degree

    def size(self, grade: Grade, weights: Tensor) -> Tensor:  # [G]
        """Degree to which a measure exceeds that of the objects that may be meant."""
        values = grade.direction * self.places.measure(grade.measure, self.camera)
        mean = (weights * values).sum() / weights.sum().clamp(min=1e-6)
        spread = (values - values.mean()).square().mean().sqrt().clamp(min=1e-6)
        return 0.3 + 0.7 * (2 * (values - mean) / spread).sigmoid()

    def relation(
        self, relation: Relation, is_named: bool = False, is_denied: bool = False
    ) -> Tensor | None:  # [G]
        """Degree to which each group is in a relation to what a sentence mentions; None where an
        anchor is not there.

        An anchor that is no group, such as the ground, tells nothing; but what is on another group
        is "not on the ground". What is named may be inside itself: "the food in a can".
        """
        nothing = torch.ones(self.places.count)
        found = [self.anchor(anchor) for anchor in relation.anchors]
        anchors = [anchor for anchor in found if anchor is not None]
        if len(anchors) < len(found) and is_denied:
            on = self.places.relation("on").amax(dim=1)
            return 1 - on if relation.kind == "on" else None
        if len(anchors) < len(found):
            return nothing
        if not all(anchor.any() for anchor in anchors):
            return None
        if relation.kind in VIEWED and self.camera is None and len(anchors) == 1:
            self.trace.append(f"{relation.kind}: needs a camera")
            return nothing
        if relation.kind == "between" and len(anchors) == 1:  # "between the boxes"
            anchors *= 2
        if relation.kind == "between" or len(anchors) > 1:
            if len(anchors) != 2:
                return nothing
            degree = self.places.triple(relation.kind)
            result = (degree * anchors[0][:, None] * anchors[1]).amax(dim=(1, 2))
        else:
            degree = self.places.relation(relation.kind, self.camera)
            if not anchors:
                return degree.amax(dim=1)
            if relation.kind == "far" and _is_every(relation.anchors[0]):
                ways = self._nearest(anchors[0])
                return (ways / ways.max().clamp(min=1e-6)).square()
            result = (degree * anchors[0]).amax(dim=1)
        if all(anchor.sum() < 1.5 for anchor in anchors):  # nothing is related to itself
            for anchor in anchors:
                result = result * (anchor < STARTS)
        if relation.kind == "inside" and is_named and relation.anchors[0].noun:
            result = torch.maximum(result, anchors[0])
        return result

    def anchor(self, item: Description) -> Tensor | None:  # [G]
        """Degree to which a relation starts from each group, 1 at those that are meant; None for
        the background.
        """
        if item == Description(count=item.count):
            return torch.ones(self.places.count)  # "anything"
        if not item.parts and Phrase.of(item).head in self.vocabulary.background:
            self.trace.append(f"{item.text}: no object of the scene")
            return None
        if item.parts:
            item = replace(item, count=None)  # "next to the mug or the bowl"
        groups, total = self.select(item)
        degree = torch.zeros(self.places.count)
        if groups and item.count is not None and not item.parts:
            degree = (total / total[groups].min()).clamp(max=1)
            degree = torch.where(degree >= ALIKE, degree, 0)  # those that the trace names
        degree[groups] = 1
        return degree

    def _nearest(self, anchor: Tensor) -> Tensor:  # [G] -> [G]
        """Distance to the nearest other group that an anchor means; 0 without any."""
        ways = self.places.distances()[0].fill_diagonal_(torch.inf)
        return ways[:, anchor >= STARTS].amin(dim=1).nan_to_num(posinf=0)

    def rank(self, rank: Rank, weights: Tensor, count: int | None) -> Tensor:  # [G]
        """Returns the probability of each group to stand at a place of the order of all G.

        A group counts in the order with its weight, so the places of the others are uncertain: the
        number of weighted groups before one is a sum of independent events.
        """
        itself = torch.zeros(self.places.count, dtype=torch.bool)
        if rank.anchor:
            anchor = self.anchor(rank.anchor)
            if anchor is None or not anchor.any():
                return torch.ones_like(weights)
            measure = -self._nearest(anchor)
            if weights[anchor < STARTS].any():  # not so where each is one: "another can"
                itself = anchor >= STARTS
        else:
            measure = self.places.measure(rank.grade.measure, self.camera)
        if measure.isnan().all():
            self.trace.append(f"{rank.grade}: needs a camera")
            return torch.ones_like(weights)
        values, position = rank.grade.direction * measure, rank.position
        if position < 0:
            values, position = -values, -position
        weights = (weights / weights.max().clamp(min=1e-6)).masked_fill(itself, 0)
        result = torch.zeros_like(weights)
        before = torch.zeros(len(weights) + 1)  # probability of each number of groups before
        before[0] = 1
        for group in values.argsort(descending=True).tolist():
            if not values[group].isnan():
                result[group] = before[position - 1 : position - 1 + (count or 1)].sum()
                before = before * (1 - weights[group]) + before.roll(1) * weights[group]
        return result.masked_fill(itself, 0)

    def _note(
        self, label: str, weights: Tensor, groups: Sequence[int], others: Sequence[str] = ()
    ) -> None:
        best = weights.argsort(descending=True)[:3].tolist()
        shown = ", ".join(f"{self.names[group]} {weights[group]:.2f}" for group in best)
        chosen = [", ".join(self.names[group] for group in groups) or "nothing", *others]
        self.trace.append(f"{label}: {shown} → {', '.join(chosen)}")


def _label(item: Description) -> str:
    """The first line of a description."""
    return str(item).partition("\n")[0]


def _is_every(item: Description) -> bool:
    """Whether an anchor means all that fit, as "anything" does."""
    return item.count is None or item == Description()


def _is_measured(item: Description) -> bool:
    """Whether nothing but colours and sizes is said of the object itself."""
    words = {*item.text.split()} - {"and", "or"}
    measured = {word for word in words if word in COLOR_WORDS}
    return not item.noun and len(words - measured) <= len(item.sizes)
