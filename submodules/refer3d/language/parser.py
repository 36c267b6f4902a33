"""From a sentence to its :class:`Description`."""

from __future__ import annotations

import functools
import re
from dataclasses import replace

from refer3d.language import lexicon as words_of
from refer3d.language.description import Description
from refer3d.language.reader import Reader, with_pronoun
from refer3d.language.tokens import normalize, tokenize
from refer3d.language.tree import with_noun


@functools.lru_cache(4096)
def parse(sentence: str, is_near: bool = False) -> Description:
    """Parses a sentence, or several, in English; of other languages the whole text is the
    description.

    Args:
        sentence: What to find, in any wording.
        is_near: Whether "it" is the nearest of the nouns before it that it may stand for, not the
            first: "the lamp next to the box with a pen in it".

    Examples:
        >>> print(parse("Where is the smaller of the two red boxes next to the mug?"))
        anything
          among 'red boxes', 2, red
            near 'mug'
          rank 1 by -volume

    Raises:
        ImportError: The package with spaCy's model is absent.
    """
    text = normalize(sentence)
    for read in (_choice, _sequel):
        if (item := read(text, is_near)) is not None:
            return item
    tokens = tokenize(text)
    if not any(token[0].isalnum() for token in tokens):
        return Description(text=" ".join(sentence.split()))
    return Reader(tokens, is_near).read()


def _choice(text: str, is_near: bool) -> Description | None:
    """Read "which of the cups is red?" and "which is taller, the mug or the vase?"."""
    text = text.rstrip(" .?!")
    if match := re.match(words_of.CHOICE_OF, text):
        among = parse(match["set"], is_near)
    elif match := next(filter(None, (re.match(c, text) for c in words_of.CHOICES)), None):
        kind = match["kind"] or ""
        items = [parse(either, is_near) for either in re.split(r",? or |, ", match["set"])]
        nouns = [kind if kind not in words_of.PRONOUNS else "", *(i.noun for i in items[::-1])]
        noun = next(filter(None, nouns), "")
        among = Description(parts=tuple(with_noun(item, noun) for item in items), count=None)
    else:
        return None
    head = "ones" if match["verb"] in ("are", "were", "have") else "one"
    return replace(parse(f"the {head} that {match['verb']} {match['said']}", is_near), among=among)


def _sequel(text: str, is_near: bool) -> Description | None:
    """What the last of several sentences asks of the others: "There is a box. What is on it?"."""
    before, _, last = text.rpartition(". ")
    if not before:
        return None
    last = re.sub(words_of.MEANT, "", last)
    if re.match(words_of.ASKED, last) and re.search(r"\b(?:it|them)\b", last):
        return with_pronoun(parse(last, is_near), parse(before, is_near))
    if re.match(r"(?:the|a) (?:.* )?ones?\b", last):
        item, among = parse(last, is_near), parse(before, is_near)
        if not item.noun and not item.parts:
            return replace(
                item, among=replace(among, count=None if among.count == 1 else among.count)
            )
    return None
