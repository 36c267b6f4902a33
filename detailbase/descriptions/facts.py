"""What holds for the objects of a labelled scan: colours, sizes, and places beside each other."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from scipy.spatial import KDTree

SAMPLE = 400
"""Most points of an object whose distances to another are measured."""
SURFACES = frozenset({"wall", "floor", "ceiling"})
"""What everything stands beside; it is not described, and named only where something touches it."""
NEAR, FAR = 0.35, 0.7
"""Metres between things that are next to each other at most, and that are not at least."""
TOUCHING = 0.1
"""Largest gap in metres between things that touch."""
CLEARLY = 1.25
"""Least ratio of the sizes or distances of two things that a comparison tells apart."""


@dataclass(frozen=True, eq=False)
class Thing:
    """A labelled object."""

    identity: int
    name: str
    """Lower-case label."""
    points: np.ndarray
    """[N, 3] metres, z up."""
    colour: str

    @cached_property
    def sample(self) -> np.ndarray:  # [<= SAMPLE, 3]
        """Some of the points, evenly over their order."""
        return self.points[:: max(1, -(-len(self.points) // SAMPLE))]

    @cached_property
    def tree(self) -> KDTree:
        """All points, for distances."""
        return KDTree(self.points)

    @cached_property
    def low(self) -> np.ndarray:  # [3]
        """Lower corner of the box, without stray points."""
        return np.percentile(self.points, 2, axis=0)

    @cached_property
    def high(self) -> np.ndarray:  # [3]
        """Upper corner of the box."""
        return np.percentile(self.points, 98, axis=0)

    @property
    def centre(self) -> np.ndarray:  # [3]
        """Centre of the box."""
        return (self.low + self.high) / 2

    @property
    def size(self) -> float:
        """Diagonal of the box in metres."""
        return float(np.linalg.norm(self.high - self.low))


@dataclass(frozen=True)
class Fact:
    """Something that holds for a thing."""

    relation: str
    anchors: tuple[Thing, ...]
    """The things that it is told by."""
    excludes: frozenset[int]
    """Those things of the same name for which it clearly does not hold."""


def colour_name(rgb: np.ndarray) -> str:  # [N, 3] of 0 to 1
    """Names the median colour."""
    hue, saturation, value = colorsys.rgb_to_hsv(*np.median(rgb, axis=0).tolist())
    if value < 0.22:
        return "black"
    if saturation < 0.16:
        return "white" if value > 0.78 else "gray"
    degrees = 360 * hue
    if 15 <= degrees < 65 and (saturation < 0.45 and value > 0.55):
        return "beige"
    if 10 <= degrees < 45 and value < 0.65:
        return "brown"
    ends = (15, 42, 68, 165, 255, 290, 335)
    names = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "red")
    return names[int(np.searchsorted(ends, degrees, side="right"))]


def facts_of(thing: Thing, things: Sequence[Thing]) -> list[Fact]:
    """Lists what holds for a thing, with the things of its name that each fact excludes.

    What is true of one and unclear of another, such as a gap between ``NEAR`` and ``FAR``, is
    no fact that tells them apart. Directions that depend on where one stands are left out.
    """
    rivals = [one for one in things if one.name == thing.name and one is not thing]
    anchors = [one for one in things if one is not thing and one.name not in SURFACES]
    found = []

    def add(relation: str, told_by: Iterable[Thing], false: Iterable[Thing]) -> None:
        excluded = frozenset(one.identity for one in false)
        found.append(Fact(relation, tuple(told_by), excluded))

    for relation, holds, clearly_not in RELATIONS:
        for anchor in anchors:
            if anchor.name != thing.name and holds(thing, anchor):
                # "Next to a chair" is said of any of the chairs.
                alike = [one for one in things if one.name == anchor.name]
                false = (r for r in rivals if all(clearly_not(r, one) for one in alike))
                add(relation, [anchor], false)
    for relation, name in (("against", "wall"), ("on", "floor")):
        surfaces = [one for one in things if one.name == name]
        touched = [one for one in surfaces if gap(thing, one) < TOUCHING]
        if touched:
            add(
                relation,
                touched[:1],
                (r for r in rivals if all(gap(r, s) > NEAR for s in surfaces)),
            )
    if rivals:
        names = ("larger", "smaller") if len(rivals) == 1 else ("largest", "smallest")
        for relation, key in zip(names, (1, -1), strict=True):
            if all(thing.size**key > CLEARLY * one.size**key for one in rivals):
                add(relation, (), rivals)
        for anchor in anchors:
            own = distance(thing, anchor)
            others = [distance(one, anchor) for one in rivals if one is not anchor]
            is_unique = not any(one.name == anchor.name for one in things if one is not anchor)
            if is_unique and others and own > 0:
                if own * CLEARLY < min(others):
                    add("closest", [anchor], rivals)
                if own > CLEARLY * max(others):
                    add("farthest", [anchor], rivals)
    pairs = [(a, b) for i, a in enumerate(anchors) for b in anchors[i + 1 :]]
    for a, b in pairs:
        if len({thing.name, a.name, b.name}) == 3 and is_between(thing, a, b):
            add("between", [a, b], (r for r in rivals if not is_between(r, a, b, slack=2.0)))
    same = [one for one in rivals if one.colour == thing.colour]
    add("colour", (), (one for one in rivals if one not in same))
    return found


@lru_cache(maxsize=4096)
def gap(one: Thing, other: Thing) -> float:
    """Measures the least distance between two things, in metres."""
    return float(other.tree.query(one.sample)[0].min())


def distance(one: Thing, other: Thing) -> float:
    """Measures the horizontal distance between two centres, in metres."""
    return float(np.linalg.norm((one.centre - other.centre)[:2]))


def is_near(one: Thing, other: Thing) -> bool:
    """Tells whether two things stand side by side."""
    return gap(one, other) < NEAR and not is_on(one, other) and not is_on(other, one)


def is_over(one: Thing, other: Thing) -> bool:
    """Tells whether a thing's centre lies above another's ground plan."""
    return bool(
        (one.centre > other.low - 0.05)[:2].all() and (one.centre < other.high + 0.05)[:2].all()
    )


def is_on(one: Thing, other: Thing) -> bool:
    """Tells whether a thing stands on another: it touches it, most closely with its lower part."""
    if not is_over(one, other) or one.size >= other.size:
        return False
    distances, _ = other.tree.query(one.sample)
    closest = one.sample[distances <= np.quantile(distances, 0.25)]
    return bool(distances.min() < TOUCHING and closest[:, 2].mean() < one.centre[2])


def is_above(one: Thing, other: Thing) -> bool:
    """Tells whether a thing hangs or lies over another without touching it."""
    return bool(is_over(one, other) and one.low[2] > other.high[2] + 0.15)


def is_under(one: Thing, other: Thing) -> bool:
    """Tells whether a thing lies below another's top, as a box below a table."""
    return is_over(one, other) and bool(
        one.high[2] < other.high[2] - 0.05 and one.centre[2] < other.centre[2]
    )


def is_between(one: Thing, a: Thing, b: Thing, slack: float = 1.0) -> bool:
    """Tells whether a thing lies in the middle third between two others, near their line.

    What carries one of them does not.
    """
    line = (b.centre - a.centre)[:2]
    length = float(np.linalg.norm(line))
    if not 0.3 < length < 3.0 or is_over(a, one) or is_over(b, one):
        return False
    offset = (one.centre - a.centre)[:2]
    along = float(offset @ line) / length**2
    aside = abs(float(offset[0] * line[1] - offset[1] * line[0])) / length**2
    return abs(along - 0.5) < slack / 6 and aside < slack * 0.2


RELATIONS = (
    ("near", is_near, lambda one, other: gap(one, other) > FAR),
    ("on", is_on, lambda one, other: not is_over(one, other) or gap(one, other) > TOUCHING),
    ("above", is_above, lambda one, other: not is_over(one, other)),
    ("under", is_under, lambda one, other: not is_over(one, other)),
)
"""Relations to one other thing: name, whether it holds, and whether it clearly does not."""
