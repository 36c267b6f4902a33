"""What a sentence says of the object itself, and what of its surroundings.

"The red mug lying next to the bowl of fruit" describes a mug. An embedding of the whole sentence
hears the bowl and the fruit as loudly. So a sentence is taken apart by a short rule for English:
from a word of place ("next to", "between", "on top of") to the next comma or clause it speaks of
other objects, the *anchors*; the rest is *own*. A sentence in which the rule finds nothing is all
own, so other languages lose nothing but the gain.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

PLACES = {
    "near": r"next to|beside|besides|alongside|adjacent to|touching|in front of|behind|near"
    r"|(?:nearest|nearer|closest|closer|close)(?: to)?|right by",
    "far": r"(?:far|farther|further|farthest|furthest)(?: away)? from|away from"
    r"|on the (?:far|other|opposite) side(?: of [a-z ]+?)? from",
    "between": r"between",
    "above": r"on top of|on|onto|upon|above|over",
    "below": r"underneath|under|beneath|below|supporting|supports|carrying|carries",
    "taller": r"(?:taller|higher) than",
    "lower": r"(?:shorter|lower|flatter) than",
    "larger": r"(?:larger|bigger|wider|longer) than",
    "smaller": r"(?:smaller|thinner|slimmer|narrower) than",
    "other": r"than|unlike",
}
"""Words of place or comparison, by the relation that they state."""

COLORS = {
    "red": "red crimson scarlet ruby maroon burgundy",
    "orange": "orange amber",
    "yellow": "yellow golden gold brass",
    "green": "green olive emerald",
    "blue": "blue navy azure turquoise cyan teal",
    "purple": "purple violet lilac",
    "pink": "pink magenta",
    "brown": "brown tan beige wooden copper bronze",
    "black": "black",
    "white": "white ivory",
    "gray": "gray grey silver chrome steel",
}
"""Eleven basic colours and what else they are called."""

SIZES = {
    ("height", 1): "tall taller tallest high highest upright",
    ("height", -1): "low lowest flat flatter flattest",
    ("length", 1): "long longer longest wide wider widest",
    ("length", -1): "short shorter shortest",
    ("volume", 1): "big bigger biggest large larger largest huge",
    ("volume", -1): "small smaller smallest little tiny mini",
    ("slenderness", 1): "thin thinner thinnest slim slender narrow",
    ("elevation", 1): "upper top topmost",
    ("centrality", 1): "middle centre center central",
    ("centrality", -1): "edge corner rim",
}
"""Words of size and place, by the measure of a group that they grade and its direction."""

_POSTURE = (
    r"(?:standing|stands|lying|lies|sitting|sits|resting|rests|placed|stacked|parked|located)"
)
_ADVERB = r"(?:right|directly|just|alone|by itself|very|that|which|is|are|and)"
_PLACE = re.compile(
    rf"\b(?:(?:{_POSTURE}|{_ADVERB}) )*"
    + "(?:"
    + "|".join(f"(?P<{kind}>{words})" for kind, words in PLACES.items())
    + r")\b(?= )"
)
_HEAD_END = re.compile(
    r"(?<=\w)(?:,| (?:that|which|who|whose|with|without|of|for|to|in|from|used|made|you|one|at)\b)"
)
_CLAUSE_END = re.compile(r",|;|\b(?:which|that|who|used|with|holding|but|for|is|are)\b")
_COLOR_OF = {word: color for color, words in COLORS.items() for word in words.split()}
_SIZE_OF = {word: size for size, words in SIZES.items() for word in words.split()}


@dataclass(frozen=True)
class Relation:
    """A statement about where or how large an object is compared with others."""

    kind: str
    """A key of :data:`PLACES`."""
    anchors: tuple[str, ...]
    """What it is compared with; two where it is between them, none where it means all others."""


@dataclass(frozen=True)
class Phrases:
    """A sentence taken apart."""

    own: str
    """What it says of the object itself; never empty."""
    head: str
    """The first noun phrase of that."""
    relations: tuple[Relation, ...]
    colors: tuple[str, ...]
    """Basic colours that the own part names."""
    sizes: tuple[tuple[str, int, float], ...]
    """Measure, direction and strength (2 for a superlative) of every word of size in it."""


def take_apart(sentence: str) -> Phrases:
    """Applies the rule to one sentence."""
    text = " ".join(sentence.lower().strip().rstrip(".!?").split())
    kept, relations, position = [], [], 0
    while match := _PLACE.search(text, position):
        kind = match.lastgroup or "other"
        ends = (pattern.search(text, match.end()) for pattern in (_CLAUSE_END, _PLACE))
        stop = min((end.start() for end in ends if end), default=len(text))
        anchor = text[match.end() : stop].strip()
        if _is_relation(kind, match.group(), anchor):
            kept.append(text[position : match.start()])
            relations.append(_relation(kind, anchor))
        else:
            stop = match.end()
            kept.append(text[position:stop])
        position = stop
    kept.append(text[position:])
    own = re.sub(r"\s+([,;])", r"\1", " ".join("".join(kept).split())).strip(" ,;")
    own = re.sub(r"(?: (?:but|is|are|that|which|and))+$", "", own) or text or sentence
    words, head = re.findall(r"[\w'-]+", own), _head(own)
    # A superlative compares the whole object; "long" may be said of its tail alone.
    graded = [w for w in words if w in _SIZE_OF and (w in head.split() or w.endswith("est"))]
    graded += [w for w in words if w in _SIZE_OF and _SIZE_OF[w][0] == "centrality"]
    return Phrases(
        own=own,
        head=head,
        relations=tuple(relations),
        colors=tuple(dict.fromkeys(_COLOR_OF[word] for word in words if word in _COLOR_OF)),
        sizes=tuple((*_SIZE_OF[word], 2.0 if word.endswith("est") else 1.0) for word in graded),
    )


def _is_relation(kind: str, trigger: str, anchor: str) -> bool:
    """Whether the words after a word of place point at something in the scene."""
    if not anchor or (kind != "other" and re.match(r"(?:its|it|itself|their)\b", anchor)):
        return False
    # "spread on bread" tells a use, "on the bread" and "lying on bread" a place.
    is_definite = re.match(r"(?:the|another|two|both)\b", anchor)
    return bool(
        kind not in ("above", "below")
        or is_definite
        or re.match(_POSTURE, trigger)
        or "top" in trigger
    )


def _relation(kind: str, anchor: str) -> Relation:
    if re.match(r"(?:everything|anything|all|any|every)\b", anchor):
        return Relation(kind, ())
    anchors = re.split(r" and (?=the |a |an )", anchor) if kind == "between" else [anchor]
    trimmed = (re.sub(r" (?:and|or)$", "", phrase.strip()) for phrase in anchors[:2])
    return Relation(kind, tuple(trimmed))


def _head(own: str) -> str:
    """The words before the first that begins a clause or a prepositional phrase."""
    end = _HEAD_END.search(own)
    return (own[: end.start()] if end else own).strip() or own
