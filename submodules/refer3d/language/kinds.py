"""Kinds of things: a banana is a fruit, a cat is no dog.

Similarities of embeddings tell what goes together, which a cat and a dog do. WordNet tells which
noun includes another.
"""

from __future__ import annotations

import functools
import gzip
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources

COMMON = 5
"""Senses of a noun that are read, the most frequent first."""
FAMILY = 3
"""Steps to the widest kinds that still say what a thing is."""
PLURALS = (("s", ""), ("es", ""), ("ies", "y"), ("ves", "f"), ("ves", "fe"))
"""Ends of plurals, and of their singulars."""
IRREGULAR = {
    "people": "person",
    "men": "man",
    "women": "woman",
    "children": "child",
    "mice": "mouse",
    "geese": "goose",
    "teeth": "tooth",
    "feet": "foot",
    "cacti": "cactus",
}
UNKNOWN = 0.25
"""Degree to which a noun names things where WordNet lacks one of them."""


@functools.cache
def _wordnet() -> tuple[list[str], dict[str, str]]:
    """The wider kinds of each kind, and the kinds that each noun can mean: numbers and commas."""
    packed = resources.files("refer3d.language").joinpath("kinds.txt.gz").read_bytes()
    wider, _, nouns = gzip.decompress(packed).decode().partition("\n=\n")
    return wider.split("\n"), dict(line.split(":") for line in nouns.split("\n"))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, filter(None, text.split(","))))


@functools.cache
def _wider(kind: int) -> Mapping[int, int]:
    """The kinds that include a kind, with the number of steps to each."""
    steps = {kind: 0}
    for parent in _numbers(_wordnet()[0][kind]):
        for other, count in _wider(parent).items():
            steps[other] = min(count + 1, steps.get(other, count + 1))
    return steps


@functools.cache
def _narrower() -> Mapping[int, Sequence[int]]:
    narrower: dict[int, list[int]] = {}
    for kind, wider in enumerate(_wordnet()[0]):
        for parent in _numbers(wider):
            narrower.setdefault(parent, []).append(kind)
    return narrower


@functools.cache
def _noun_of() -> Mapping[int, str]:
    """A noun of each kind whose most frequent sense it is."""
    nouns: dict[int, str] = {}
    for noun, numbers in _wordnet()[1].items():
        nouns.setdefault(_numbers(numbers)[0], noun)
    return nouns


@functools.lru_cache(4096)
def singulars(noun: str) -> tuple[str, ...]:
    """Forms that a noun phrase can have in the singular, itself first."""
    first, _, last = noun.rpartition(" ")
    forms = [last, IRREGULAR.get(last, last)]
    forms += [last.removesuffix(end) + new for end, new in PLURALS if last.endswith(end)]
    return tuple(dict.fromkeys(f"{first} {form}".strip() for form in forms))


@functools.cache
def senses(noun: str) -> tuple[int, ...]:
    """Kinds that a noun phrase can mean, by its longest known end: of "red desk lamp", the lamp."""
    nouns, words = _wordnet()[1], noun.split()
    for start in range(len(words)):
        end = " ".join(words[start:])
        for form in (*singulars(end), end.replace("-", " ")):
            if form in nouns:
                return _numbers(nouns[form])[:COMMON]
    return ()


@functools.lru_cache(4096)
def common_senses(nouns: tuple[str, ...]) -> frozenset[int]:
    """Senses in which nouns can name one and the same thing: of "dog" and "pet", not the sausage.

    Of each noun those are kept that have most in common with the other nouns; frequent ones count
    more. Unknown nouns have none.
    """
    nouns = tuple(noun for noun in dict.fromkeys(nouns) if senses(noun))
    common: set[int] = set()
    for noun in nouns:
        others = [[_wider(s).keys() for s in senses(other)] for other in nouns if other != noun]
        support = []
        for rank, sense in enumerate(senses(noun)):
            wider = _wider(sense).keys()
            shared = sum(max(len(wider & w) / len(wider | w) for w in other) for other in others)
            support.append(shared / (1 + rank))
        best = max(support)
        pairs = zip(senses(noun), support, strict=True)
        common |= {sense for sense, value in pairs if value >= best / 3}
    return frozenset(common)


def degree(noun: str, kinds: Iterable[int]) -> float:
    """Degree to which a noun can name a thing of given kinds.

    1 if it means one of them or includes one; less the more special it is than the most special of
    them; 0 if it is beside all of them, as "violin" is beside "guitar".
    """
    meanings, kinds = senses(noun), [*kinds]
    if not meanings or not kinds:
        return UNKNOWN
    if any(sense in _wider(kind) for kind in kinds for sense in meanings):
        return 1.0
    steps = [_wider(sense).get(kind) for kind in _special(kinds) for sense in meanings]
    return max((0.5**count for count in steps if count is not None), default=0.0)


def _special(kinds: Iterable[int]) -> set[int]:
    """Those kinds that include no other one."""
    distinct = {*kinds}
    return distinct - {wider for kind in distinct for wider in _wider(kind) if wider != kind}


def superordinates(kinds: Iterable[int]) -> list[str]:
    """Nouns that include the most special of some kinds, nearest first: "instrument"."""
    steps = [(n, kind) for k in _special(kinds) for kind, n in _wider(k).items()]
    near = dict.fromkeys(kind for count, kind in sorted(steps) if 0 < count <= FAMILY)
    return [_noun_of()[kind] for kind in near if kind in _noun_of()]


def siblings(kinds: Iterable[int]) -> list[str]:
    """Nouns beside the most special of some kinds: for a guitar, "violin" and "banjo"."""
    special = _special(kinds)
    parents = {parent for kind in special for parent in _numbers(_wordnet()[0][kind])}
    others = {other for parent in parents for other in _narrower()[parent]} - special
    return sorted(_noun_of()[other] for other in others if other in _noun_of())
