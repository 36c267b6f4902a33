"""Texts of descriptions that are compared, and the kinds of things that they name."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from refer3d.language import COLORS, Description, kinds
from refer3d.language.lexicon import PRONOUNS

WHO = {"where", "i", "you", "we", "they", "people"}
"""Words that begin a clause: "the thing you eat"."""
COLOR_WORDS = {word for names in COLORS.values() for word in names.split()}


@dataclass(frozen=True)
class Phrase:
    """Texts of a description that are compared."""

    text: str
    noun: str
    head: str
    """The noun's last word; "" where there is no noun."""
    words: tuple[str, ...]
    """Words of the text that are not function words."""
    kind: str = "name"
    """``name``, ``clause``, or ``content``: a noun's complement ("a jar *of pickles*")."""
    naming: tuple[str, ...] = ()
    """Those of ``words`` up to the noun; others tell of the object in a clause."""

    @classmethod
    def of(cls, item: Description, is_sentence: bool = False) -> Phrase:
        """Collects the texts; names go without colours, which the scene shows."""
        text, kind = item.text, "clause" if is_sentence or is_clause(item) else "name"
        if kind == "name" and item.colors:
            text = without_colors(text)
        text = text or item.text or "thing"
        noun = item.noun or text
        head = item.noun.split(" of ")[0].rpartition(" ")[2]
        words = content_words(text, item.noun) or (text,)
        last = item.noun.rpartition(" ")[2]
        before = f" {text} ".partition(f" {last} ")[0] if last else ""
        naming = content_words(f"{before} {last}", item.noun) if last else words
        return cls(text, noun, head, words, kind, tuple(w for w in words if w in naming))

    @classmethod
    def of_noun(cls, noun: str) -> Phrase:
        """A noun, with its compounds and complement, that says nothing else."""
        head = noun.split(" of ")[0].rpartition(" ")[2]
        return cls(noun, noun, head, content_words(noun, noun) or (noun,))

    @classmethod
    def content_of(cls, item: Description) -> Phrase | None:
        """The complement of a description's noun, which must fit, too; None without one."""
        _, _, noun = item.noun.partition(" of ")
        text = without_colors(noun) or noun
        return cls(text, text, "", content_words(text) or (text,), "content") if text else None

    @property
    def texts(self) -> tuple[str, ...]:
        """Everything to encode."""
        return (self.text, self.noun, self.head or self.text, *self.words)

    def names(self) -> list[Phrase]:
        """Its noun with compounds, and alone."""
        if not self.head:
            return []
        return [Phrase.of_noun(noun) for noun in dict.fromkeys((self.noun, self.head))]


def is_clause(item: Description) -> bool:
    """Whether a phrase tells a use or a property in a clause instead of a name."""
    if item.text.split(" ")[0] in PRONOUNS | WHO:  # a sentence read as a noun phrase
        return True
    if not item.noun:
        return bool(without_colors(item.text)) and not item.sizes  # "edible", too
    _, _, said = f"{item.text} ".rpartition(f"{item.noun.rpartition(' ')[2]} ")
    return any(word not in item.properties for word in said.split())  # "the mug that is red"


def is_property(item: Description) -> bool:
    """Whether nothing but adjectives is said of the object itself: "the edible thing"."""
    return not item.noun and len(item.text.split()) <= len(item.properties) + len(item.colors)


def without_colors(text: str) -> str:
    """A text without its words of colour, which the scene shows."""
    return " ".join(word for word in text.split() if word not in COLOR_WORDS)


def content_words(text: str, noun: str = "") -> tuple[str, ...]:
    """Distinct words of a text without function words; a noun may be spelt like one: "can"."""
    from spacy.lang.en.stop_words import STOP_WORDS

    function_words = STOP_WORDS - {*noun.replace(" of ", " ").split()}
    words = re.findall(r"\w+(?:[-'.]\w+)*", text.lower())
    return tuple(dict.fromkeys(w for w in words if w not in function_words and len(w) > 1))


def is_among(word: str, words: Collection[str]) -> bool:
    """Whether a noun is among words, in the singular or in the plural."""
    forms = {*kinds.singulars(word)}
    return bool(word) and any(not forms.isdisjoint(kinds.singulars(other)) for other in words)


@functools.lru_cache(1 << 16)
def names_degree(phrase: Phrase, called: tuple[str, ...]) -> float:
    """Degree to which a phrase's noun is, or includes, what something is called."""
    if not phrase.head:
        return kinds.UNKNOWN
    names = parts(called)
    if is_among(phrase.head, {name.rpartition(" ")[2] for name in names}):
        return 1.0
    return kinds.degree(phrase.noun.split(" of ")[0], kinds.common_senses(names))


def parts(called: Sequence[str]) -> tuple[str, ...]:
    """Nouns with what they consist of: a jar of jam is a jar and jam."""
    return tuple(dict.fromkeys(part for noun in called for part in noun.split(" of ")))
