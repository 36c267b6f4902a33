"""Clauses: what a verb says of an object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from refer3d.language import lexicon as words_of
from refer3d.language.description import Relation
from refer3d.language.relations import RelationReader
from refer3d.language.tokens import trigger
from refer3d.language.tree import NOUNS, Draft

DENIALS = ("not", "n't", "never")


class ClauseReader(RelationReader):
    """Reads places, comparisons, negations and properties in clauses."""

    def clause(self, verb: Any, draft: Draft, subject: Any | None = None) -> None:
        """Adds a verb's statement, or what it denies."""
        denials = [t for t in verb.children if t.dep_ == "neg" or self.word(t) in DENIALS]
        if denials or any(self.word(token) == "neither" for token in verb.subtree):
            self.denial(verb, draft, subject, denials)
        else:
            self.statement(verb, draft, subject)

    def denial(self, verb: Any, draft: Draft, subject: Any | None, denials: Sequence[Any]) -> None:
        """Adds what a verb denies: "that is not blue", "that is neither a bowl nor blue"."""
        attributes = (c for c in verb.children if c.dep_ == "attr")
        nouns = [c for c in attributes if c.pos_ in NOUNS or self.is_empty(c)]
        if self.lemma(verb) == "be" and nouns:
            adjectives = [c for c in nouns[0].children if c.dep_ == "conj" and c.pos_ == "ADJ"]
            draft.excluded += [self.describe(token) for token in adjectives]
            for token in adjectives:
                self.claim(token.subtree)
            draft.excluded.append(self.exception(nouns[0]))
            self.claim(verb.subtree)
            return
        inner = Draft(count=draft.count)
        self.statement(verb, inner, subject, is_denied=True)
        inner.count = draft.count
        said = (t for t in verb.subtree if t.i not in self.claimed and t not in denials)
        text = self.text([t for t in said if self.word(t) not in words_of.NEGATIONS])
        excluded = inner.build(text)
        self.claim(verb.subtree)
        is_either = any(self.word(token) == "neither" for token in verb.subtree)
        if not is_either and len(inner.colors) <= 1:
            draft.excluded.append(excluded)
            return
        for word in inner.properties:
            colors = (words_of.COLOR_OF[word],) if word in words_of.COLOR_OF else ()
            draft.excluded.append(replace(excluded, text=word, properties=(word,), colors=colors))

    def statement(
        self, verb: Any, draft: Draft, subject: Any | None = None, is_denied: bool = False
    ) -> None:
        """Adds what a verb states: a place, a comparison or a property."""
        kids, lemma = list(verb.children), self.lemma(verb)
        relative = [c for c in kids if self.is_relative(c)]
        subjects = [c for c in kids if c.dep_.startswith("nsubj")]
        is_object = any(c.dep_ in ("dobj", "pobj") for c in relative) or (
            verb.dep_ == "relcl" and not any(c in relative for c in subjects)
        )
        others = [
            c for c in subjects if c not in relative and (subject is None or c.i != subject.i)
        ]
        agent = others[0] if is_object and others and others[0].tag_ != "PRP" else None
        objects = [c for c in kids if c.dep_ in ("dobj", "attr") and c not in relative]
        before = len(draft.relations) + len(draft.ranks)
        if lemma in words_of.HOLDING and (objects or is_object or self.by(verb) is not None):
            self.holding(verb, draft, agent, objects)
        elif agent is not None and (kind := self.dangling(verb)) is not None:
            inverse = words_of.INVERSE.get(kind, kind)
            draft.relations.append(Relation(inverse, (self.joined(agent),)))
            self.claim(verb.subtree)
        elif lemma in ("have", "has") and objects:
            if self.possession(objects[0], draft):
                self.claim(verb.subtree)
        elif lemma in words_of.BEING or is_denied:
            self.predicate(verb, kids, relative, agent, draft)
        if len(draft.relations) + len(draft.ranks) > before and lemma in words_of.BEING:
            self.claim([verb, *relative])
            self.claim(c for c in kids if c.dep_ in ("aux", "auxpass", "advmod", "prt"))
        if lemma in ("be", "'s"):
            self.claim([verb, *relative])

    def is_relative(self, token: Any) -> bool:
        """Whether a verb's dependent is the pronoun that joins its clause to a noun."""
        is_that = self.word(token) in ("that", "which")
        return token.tag_ in ("WDT", "WP", "WRB") or (
            is_that and token.dep_ in ("nsubj", "nsubjpass", "dobj", "mark")
        )

    def holding(self, verb: Any, draft: Draft, agent: Any | None, objects: Sequence[Any]) -> None:
        """Adds a verb's relation to its object or its doer: "the shelf that holds the radio"."""
        kind = words_of.HOLDING[self.lemma(verb)]
        doer = self.by(verb) or agent
        other = doer if doer is not None else next(iter(objects), None)
        if other is not None:
            kind = words_of.PASSIVE[kind] if doer is not None else kind
            draft.relations.append(Relation(kind, (self.joined(other),)))
            self.claim(verb.subtree)

    def predicate(
        self,
        verb: Any,
        kids: Sequence[Any],
        relative: Sequence[Any],
        agent: Any | None,
        draft: Draft,
    ) -> None:
        """Adds the complement of a verb of being."""
        for child in kids:
            if child in relative or child.dep_ in ("neg", "punct", "cc", "aux", "auxpass"):
                continue
            if child.dep_.startswith("nsubj") and child is not agent:
                continue
            if child.i in self.claimed:
                continue
            if child.dep_ in ("attr", "dobj") and child.pos_ in ("NOUN", "PROPN", "PRON", "NUM"):
                noun, count = draft.noun, draft.count
                self.phrase(child, draft)
                draft.noun, draft.count = draft.noun or noun, count
            elif child.dep_ == "conj" and child.pos_ in ("VERB", "AUX"):
                self.clause(child, draft)
            else:
                self.modifier(child, verb, draft)
                for other in child.children:
                    if other.dep_ == "conj":
                        self.modifier(other, verb, draft)

    def by(self, verb: Any) -> Any | None:
        """The doer of a passive: "carried by the can"."""
        for child in verb.children:
            if child.dep_ == "agent" or (self.word(child) == "by" and verb.tag_ == "VBN"):
                return self.object(child)
        return None

    def dangling(self, verb: Any) -> str | None:
        """The relation of a preposition without an object but a pronoun: "what the spoon lies in",
        "in which the spoon lies".
        """
        for child in verb.children:
            target = self.object(child)
            if child.dep_ in ("prep", "prt", "advmod") and (
                target is None or self.is_relative(target)
            ):
                match = trigger(self.words, child.i)
                if match:
                    return match[0]
        return None
