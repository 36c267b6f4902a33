"""Meaning of a sentence as a tree, whatever model executes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Grade:
    """An adjective that can be measured: "tall", "small", "central"."""

    measure: str
    """``height``, ``length``, ``volume``, ``slenderness``, ``elevation`` of the bottom,
    ``altitude`` of the top, ``centrality``, ``near``, or, seen from the camera, ``right`` and
    ``depth``."""
    direction: int
    """1 for more of the measure, -1 for less."""

    def __str__(self) -> str:
        return f"{'+' if self.direction > 0 else '-'}{self.measure}"


@dataclass(frozen=True)
class Relation:
    """A statement about an object's place or size compared with others."""

    kind: str
    """near, far, between, on, under, inside, around (the inverse of inside), opposite, left, right,
    front, behind; or a comparison: taller, lower, larger, smaller, longer, shorter, thinner,
    thicker, closer, farther; these two with one anchor compare distances from the camera."""
    anchors: tuple[Description, ...] = ()
    """The other objects; two for ``between``. None means any other object ("stacked")."""


@dataclass(frozen=True)
class Rank:
    """A position in an order: "tallest", "second from the left", "closest to the mug"."""

    grade: Grade
    position: int = 1
    """1 is the first; -1 the last."""
    anchor: Description | None = None
    """Distances (``near``) are measured from here; None is the camera."""


@dataclass(frozen=True)
class Description:
    """The objects that a phrase means."""

    text: str = ""
    """The phrase without articles, relations, ranks and exclusions; "" says nothing of the kind."""
    noun: str = ""
    """The head noun with its compounds; "" for "thing", "one", "what"."""
    properties: tuple[str, ...] = ()
    """Adjectives, clauses and appositions that describe the object itself."""
    colors: tuple[str, ...] = ()
    """Basic colours among them."""
    sizes: tuple[Grade, ...] = ()
    """Measurable adjectives among them that rank nothing."""
    relations: tuple[Relation, ...] = ()
    ranks: tuple[Rank, ...] = ()
    """Applied in this order to the objects that fit everything else."""
    among: Description | None = None
    """The set to choose from: "the taller of the two cartons"."""
    excluded: tuple[Description, ...] = ()
    """Descriptions that must not hold."""
    count: int | None = 1
    """Number of objects, 0 for "none of"; None for all that fit."""
    parts: tuple[Description, ...] = ()
    """Joined descriptions: "the mug and the bowl". The rest of this record is then empty."""

    def phrases(self) -> Iterator[Description]:
        """This description and all below it."""
        yield self
        for relation in self.relations:
            for anchor in relation.anchors:
                yield from anchor.phrases()
        for rank in self.ranks:
            if rank.anchor:
                yield from rank.anchor.phrases()
        for other in (*((self.among,) if self.among else ()), *self.excluded, *self.parts):
            yield from other.phrases()

    def __str__(self) -> str:
        """The tree in lines, as the documentation shows it."""
        return "\n".join(_lines(self))


def _lines(item: Description) -> Iterator[str]:
    if item.parts:
        yield "any of" if item.count == 1 else "all of"
        for part in item.parts:
            yield from _indented("", part)
        return
    facts = [repr(item.text) if item.text else "anything"]
    facts += ["all" if item.count is None else str(item.count)] if item.count != 1 else []
    facts += item.colors
    facts += map(str, item.sizes)
    yield ", ".join(facts)
    if item.among:
        yield from _indented("among ", item.among)
    for relation in item.relations:
        if not relation.anchors:
            yield f"  {relation.kind} another"
        for anchor in relation.anchors:
            yield from _indented(f"{relation.kind} ", anchor)
    for excluded in item.excluded:
        yield from _indented("not ", excluded)
    for rank in item.ranks:
        name = f"rank {rank.position} by {rank.grade}"
        if rank.anchor:
            yield from _indented(f"{name} from ", rank.anchor)
        else:
            yield f"  {name}"


def _indented(label: str, item: Description) -> Iterator[str]:
    first, *rest = _lines(item)
    yield f"  {label}{first}"
    yield from (f"  {line}" for line in rest)
