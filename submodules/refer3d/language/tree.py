"""The parsed words of a sentence, and the description in the making."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from refer3d.language import lexicon as words_of
from refer3d.language.description import Description, Grade, Rank, Relation
from refer3d.language.tokens import analyze

NOUNS = ("NOUN", "PROPN", "PRON", "NUM")


@dataclass
class Draft:
    """A description in the making."""

    noun: str = ""
    properties: list[str] = field(default_factory=list)
    colors: list[str] = field(default_factory=list)
    sizes: list[Grade] = field(default_factory=list)
    relations: list[Relation] = field(default_factory=list)
    ranks: list[Rank] = field(default_factory=list)
    excluded: list[Description] = field(default_factory=list)
    among: Description | None = None
    count: int | None = 1
    parts: list[Description] = field(default_factory=list)

    def build(self, text: str) -> Description:
        """Returns what has been read, of the phrase ``text``."""
        denied = [r for r in self.relations if any(anchor.count == 0 for anchor in r.anchors)]
        for relation in denied:  # "next to no cup" is not next to one
            self.relations.remove(relation)
            anchors = tuple(replace(anchor, count=1) for anchor in relation.anchors)
            self.excluded.append(Description(relations=(Relation(relation.kind, anchors),)))
        return Description(
            text=text,
            noun=self.noun,
            properties=tuple(self.properties),
            colors=tuple(dict.fromkeys(self.colors)),
            sizes=tuple(dict.fromkeys(self.sizes)),
            relations=tuple(dict.fromkeys(self.relations)),
            ranks=tuple(dict.fromkeys(self.ranks)),
            among=self.among,
            excluded=tuple(dict.fromkeys(self.excluded)),
            count=self.count,
        )


class Tree(ABC):
    """spaCy's tree of one sentence, and which of its words have been read."""

    def __init__(self, tokens: Sequence[str], is_near: bool = False) -> None:
        """Parses tokens.

        Args:
            tokens: Of a sentence.
            is_near: Whether "it" is the nearest noun that it may stand for.
        """
        self.is_near = is_near
        is_bare = tokens[0] not in words_of.STARTS
        self.words = ["the", *tokens] if is_bare else list(tokens)
        self.doc = analyze(self.words)
        self.attach()
        self.claimed: set[int] = set()
        """Tokens that are no part of their phrase's text."""
        self.active: set[int] = set()
        """Heads of the phrases that are being described."""
        self.partners = dict(self.between_partners())
        """The second anchor of each "between"; the tree often hangs it elsewhere."""

    def attach(self) -> None:
        """Mends attachments of what is joined by "and", and of phrases that have an "it"."""
        for token in self.doc:
            has_it = any(self.word(t) in ("it", "them") for t in token.subtree)
            if token.dep_ == "conj" and token.head.dep_ == "pobj":
                outer = token.head.head
                while outer.pos_ not in NOUNS and outer.head.i != outer.i:
                    outer = outer.head
                is_like = self.word(token) in ("one", "ones", self.word(outer))
                is_exception = self.word(token.head.head) in words_of.EXCEPT
                if (has_it or is_like) and outer.pos_ in NOUNS and not is_exception:
                    token.head = outer  # "the bowl on the tray and everything in it"
            elif token.dep_ == "conj" and self.words[token.left_edge.i - 1] == "or":
                near = self.doc[token.left_edge.i - 2]  # "the thing in the jar or the bucket"
                is_named = token.head.pos_ in ("NOUN", "PROPN") and not self.is_empty(token.head)
                if near.dep_ == "pobj" and not is_named:
                    token.head = near
            elif (
                has_it
                and self.is_near
                and self.word(token) == "with"
                and token.nbor(-1).pos_ in NOUNS
            ):
                token.head = token.nbor(-1)  # "the lamp next to the box with a pen in it"

    def between_partners(self) -> Iterator[tuple[int, Any]]:
        for index, word in enumerate(self.words):
            if word in ("between", "betwixt") and "and" in self.words[index:]:
                start = self.words.index("and", index)
                if (token := self.noun_after(start + 1)) is not None:
                    yield index, token

    def noun_after(self, start: int, end: int | None = None) -> Any | None:
        """The head of the noun phrase that begins at a position, and before an end."""
        for token in self.doc[start : min(start + 8, end or start + 8)]:
            if token.pos_ in ("NOUN", "PROPN", "PRON") or (
                token.pos_ == "ADJ" and token.dep_ in ("pobj", "dobj")
            ):
                following = [token]
                while token.i + len(following) < len(self.doc):
                    nxt = self.doc[token.i + len(following)]
                    if nxt.pos_ not in ("NOUN", "PROPN"):
                        break
                    following.append(nxt)
                return following[-1]
            if token.pos_ in ("ADP", "VERB", "PUNCT", "SCONJ") and token.tag_ not in ("VBG", "VBN"):
                return None
        return None

    def word(self, token: Any) -> str:
        return self.words[token.i]

    def lemma(self, token: Any) -> str:
        word = self.words[token.i]
        if word in ("is", "are", "was", "were", "'s", "'re", "be", "been", "being"):
            return "be"
        return token.lemma_.lower() if self.doc[token.i].text == word else word

    def object(self, preposition: Any) -> Any | None:
        for child in preposition.children:
            if child.dep_ in ("pobj", "dobj", "pcomp") and child.i > preposition.i:
                return child
        for child in preposition.children:
            if child.dep_ == "prep":
                return self.object(child)
        return None

    def object_after(self, token: Any) -> Any | None:
        for child in token.subtree:
            if (
                child.i > token.i
                and child.dep_ in ("pobj", "dobj", "conj")
                and (child.pos_ in ("NOUN", "PROPN", "PRON", "NUM"))
            ):
                return child
        return None

    def free_relative(self, verb: Any) -> Any | None:
        """The "what" or "whatever" that a verb says something of."""
        for child in verb.children:
            if child.tag_ in ("WP", "WDT") and child.i <= verb.i:
                return child
        return None

    def claim(self, tokens: Any) -> None:
        self.claimed |= {token.i for token in tokens}

    def text(self, tokens: Sequence[Any]) -> str:
        """The words that nothing else has claimed, trimmed of marks and joints at the ends."""
        kept = sorted({t.i for t in tokens if self.word(t) not in (".", ";", ":")} - self.claimed)
        words = [self.words[i] for i in kept]
        while words and words[-1] in words_of.EDGES:
            words.pop()
        while words and words[0] in words_of.EDGES:
            words.pop(0)
        text = " ".join(words)
        return re.sub(r" (?=[,;:.'?!]|n't)", "", text)

    @abstractmethod
    def describe(self, head: Any, others: Sequence[Any] = ()) -> Description:
        """The description of the phrase that hangs under a token."""

    @abstractmethod
    def joined(self, head: Any, others: Sequence[Any] = ()) -> Description:
        """The description of a phrase, or of several that are joined."""

    def other(self, head: Any, draft: Draft) -> Description:
        """The description of what a noun is related to, where "one" is of the noun's kind."""
        item = self.joined(head)
        return with_noun(item, draft.noun) if self.word(head) in ("one", "ones") else item

    @abstractmethod
    def is_empty(self, head: Any) -> bool:
        """Whether a head names no kind of thing."""

    @abstractmethod
    def exception(self, head: Any) -> Description:
        """The description of a phrase that is excluded by name."""

    @abstractmethod
    def conjuncts(self, head: Any) -> Iterator[Any]:
        """The heads of the phrases that are joined to one."""

    @abstractmethod
    def modifier(self, child: Any, head: Any, draft: Draft) -> None:
        """An adjective, an adverb or a preposition beside a noun or a verb."""

    @abstractmethod
    def phrase(self, head: Any, draft: Draft) -> None:
        """Adds the statements of a noun and its dependents."""


def with_noun(item: Description, noun: str) -> Description:
    """A description with the noun that "the red one" leaves out."""
    if not noun or item.noun or item.parts or item.among:
        return item
    is_before = item.text.partition(" ")[0] in words_of.FUNCTION  # "with a lid"
    text = (noun, item.text) if is_before else (item.text, noun)
    return replace(item, noun=noun, text=" ".join(text).strip())
