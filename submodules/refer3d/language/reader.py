"""Reads the tree of a sentence as a :class:`Description`.

spaCy's model gives heads and attachments. Which words state places, ranks, numbers and negations is
told by the closed-class words of :mod:`refer3d.language.lexicon`, which also repair its attachments
where descriptions of objects often mislead it. Each reader reads one sort of statement and is the
base of the next: :mod:`tree <refer3d.language.tree>`, ``ranks``, ``relations``, ``clauses``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from refer3d.language import lexicon as words_of
from refer3d.language.clauses import ClauseReader
from refer3d.language.description import Description, Grade, Rank
from refer3d.language.tree import Draft, with_noun

QUALIFIERS = words_of.word_set("ADJ ADV NOUN PROPN NUM VERB")
QUALIFYING = words_of.word_set("amod advmod acomp npadvmod compound nmod conj oprd attr dep")
"""Parts of speech and dependencies of words that describe a noun."""
DEFINITE = words_of.word_set("the this that these those")
"""Determiners of what is known to be there."""


class Reader(ClauseReader):
    """Reads noun phrases, and with them whole sentences."""

    def read(self) -> Description:
        roots = [token for token in self.doc if token.head.i == token.i]
        roots = [root for root in roots if root.pos_ != "PUNCT"] or roots
        main, *others = roots
        return self.joined(main, others)

    def joined(self, head: Any, others: Sequence[Any] = ()) -> Description:
        """The description of a phrase, or of several that are joined."""
        joined = list(self.conjuncts(head))
        if not joined:
            return self.describe(head, others)
        is_any = any(self.word(c) == "or" for j in (head, *joined) for c in j.children)
        exceptions = []
        for child in head.children:
            if child.i > joined[-1].i and (target := self.excepted(child)) is not None:
                exceptions.append(self.exception(target))
                self.claim(child.subtree)
        parts = []
        for token in reversed(joined):
            parts.append(self.describe(token))
            self.claim(token.subtree)
        first = self.describe(head, others)
        parts = [first, *reversed(parts)]
        for index, token in enumerate((head, *joined)):
            before, after = (
                next((part for part in some if part.noun), first)
                for some in (parts[:index][::-1], parts[index + 1 :])
            )
            word = self.word(token)
            color = words_of.COLOR_OF.get(word) if after.colors else None
            is_order = word in words_of.GRADES.keys() | words_of.ORDINALS.keys()
            if word in ("one", "ones"):  # "the red cup and the blue one"
                parts[index] = with_noun(parts[index], before.noun)
            elif color:  # "the red and the blue cup"
                bare = replace(parts[index], noun="", colors=(color,), properties=(word,))
                parts[index] = with_noun(bare, after.noun)
            elif is_order and (after.ranks or after.sizes):  # "the left and the right cup"
                parts[index] = with_noun(parts[index], after.noun)
        anchor = next((part for part in parts if part.noun), first)
        for index, part in enumerate(parts):  # "what is in it": in the first of them
            if self.is_near and index:
                anchor = [p for p in parts[index - 1].phrases() if p.noun or p is anchor][-1]
            parts[index] = with_pronoun(part, anchor)
        if any(self.word(c) in ("all", "both", "every") for c in head.children):
            parts = [replace(part, count=None) for part in parts]
        if is_any and first.count == 0:  # "no mug or bowl"
            parts = [replace(part, count=0) for part in parts]
        for index, token in enumerate(joined, 1):  # "the red mug and the other mug"
            if any(self.word(c) == "other" for c in token.children):
                excluded = (*parts[index].excluded, *parts[:index])
                parts[index] = replace(parts[index], excluded=excluded)
        whole = Description(parts=tuple(parts), count=1 if is_any else None)
        if not exceptions:
            return whole
        return Description(among=whole, excluded=tuple(exceptions), count=whole.count)

    def excepted(self, token: Any) -> Any | None:
        """The head of what a preposition excludes: "except the mug"."""
        if self.word(token) not in words_of.EXCEPT:
            return None
        return self.object(token) or self.object_after(token)

    def exception(self, head: Any) -> Description:
        """The description of a phrase that is excluded by name: "a can" is any, "the tall one" the
        tallest.
        """
        item = self.joined(head)
        if item.count == 0:  # "neither the cup nor …"
            item = replace(item, count=1)
        is_definite = any(c.dep_ == "poss" or self.word(c) in DEFINITE for c in head.children)
        change = _singled if is_definite else _pluralised
        parts = (replace(part, count=1) if part.count == 0 else part for part in item.parts)
        return replace(change(item), parts=tuple(map(change, parts)))

    def is_empty(self, head: Any) -> bool:
        """Whether a head names no kind of thing."""
        word = self.word(head)
        grade = words_of.GRADES.get(word)
        is_graded = grade is not None and grade[2] != "plain"
        return (
            word in words_of.PRONOUNS or word in words_of.ALL or is_graded or word in words_of.EMPTY
        )

    def conjuncts(self, head: Any) -> Iterator[Any]:
        """Yields the heads of the phrases that are joined to one."""
        if self.is_empty(head) and any(self.word(c) == "of" for c in head.children):
            return  # "one of the mug and the bowl": joined below "of"
        determined = any(c.dep_ == "det" for c in head.children)
        for child in head.children:
            if child in self.partners.values() or child.i in self.claimed:
                continue
            if (
                determined
                and child.pos_ in ("NOUN", "PROPN")
                and (
                    not any(c.dep_ in ("det", "poss", "nummod") for c in child.children)
                    and any(t.pos_ == "ADP" for t in self.doc[head.i : child.i])
                )
            ):
                continue  # "a tool with two blades and yellow loops"
            if child.dep_ == "conj" and (
                child.pos_ in ("NOUN", "PROPN", "PRON", "NUM")
                or (child.pos_ in ("VERB", "AUX") and self.free_relative(child) is not None)
            ):
                yield child
                yield from self.conjuncts(child)

    def describe(self, head: Any, others: Sequence[Any] = ()) -> Description:
        """The description of the phrase that hangs under a token."""
        if head.i in self.active:  # a tree that bites its tail after a wrong attachment
            return Description()
        self.active.add(head.i)
        draft = Draft()
        scope = [*head.subtree]
        if head.pos_ in ("VERB", "AUX"):
            pronoun = self.free_relative(head)
            if pronoun is not None:
                self.clause(head, draft, pronoun)
            else:  # a noun phrase taken for a sentence
                subject = next((c for c in head.children if c.dep_.startswith("nsubj")), None)
                if subject is not None:
                    self.phrase(subject, draft)
                    self.clause(head, draft, subject)
                else:
                    self.children(head, draft)
        elif (subject := self.subject(head)) is not None:  # "the cup farthest from another"
            self.phrase(subject, draft)
            said = {token.i for token in subject.subtree} - self.claimed
            self.modifier(head, subject, draft)
            self.claimed -= said
        else:
            self.phrase(head, draft)
        self.leftovers(scope, draft)
        for other in others:
            scope += other.subtree
            subject = next((c for c in other.children if c.dep_.startswith("nsubj")), None)
            if other.pos_ in ("VERB", "AUX") and subject is not None:
                if subject.pos_ == "PRON":
                    self.claim([subject])
                self.clause(other, draft, subject)
            else:
                self.children(other, draft)
        self.active.remove(head.i)
        return draft.build(self.text(scope))

    def subject(self, head: Any) -> Any | None:
        """The noun of which a superlative is taken for a statement."""
        if words_of.GRADES.get(self.word(head), ("", 0, ""))[2] != "most":
            return None
        subjects = (c for c in head.children if c.dep_ == "nsubj" and c.pos_ in ("NOUN", "PROPN"))
        return next(subjects, None)

    def phrase(self, head: Any, draft: Draft) -> None:
        """Adds the statements of a noun and its dependents."""
        word = self.word(head)
        grade = words_of.GRADES.get(word)
        is_graded = grade is not None and (grade[2] != "plain") and head.pos_ != "VERB"
        is_pronoun = (
            word in words_of.PRONOUNS | words_of.OTHERS
            or word in words_of.NUMBERS.keys() - {"pair"}
        )
        plural = head.tag_ in ("NNS", "NNPS") or word in words_of.ALL or word in ("ones", "those")
        draft.count = 0 if word in words_of.NONE else None if plural else 1
        if is_graded:
            self.grade(head, draft)
        elif word == "pair":
            draft.count, draft.noun = None, self.noun(head)
        elif word in words_of.NUMBERS and word != "one":
            draft.count = words_of.NUMBERS[word]
            self.claim([head])
        elif is_pronoun or word in words_of.ALL:
            self.claim([head])
        elif word in words_of.ORDINALS and head.pos_ == "ADJ":
            self.ordinal(head, draft)
        elif head.pos_ in ("ADJ", "ADV") or (
            word in words_of.COLOR_OF and head.dep_ in ("acomp", "conj")
        ):
            self.adjective(head, draft)
        else:
            draft.noun = self.noun(head)
        if is_graded or is_pronoun or word in words_of.ALL:
            for child in head.children:
                if self.word(child) == "of" and (target := self.object(child)) is not None:
                    draft.among = self.joined_with(target, head)
                    self.claim(child.subtree)
        self.children(head, draft)

    def joined_with(self, target: Any, head: Any) -> Description:
        """The set that "one of" chooses from; what is joined to "one" is joined to the set."""
        more = [c for c in head.children if c.dep_ == "conj" and c.pos_ in ("NOUN", "PROPN")]
        rest = [self.joined(token) for token in more]
        for token in more:
            self.claim(token.subtree)
        first = self.joined(target)
        if not rest:
            return first
        return Description(parts=(*(first.parts or (first,)), *rest), count=None)

    def noun(self, head: Any) -> str:
        """The head with its compounds; of "a piece of cake" the cake alone."""
        compounds = [
            c
            for c in head.children
            if c.dep_ in ("compound", "nmod")
            and c.i < head.i
            and self.word(c) not in words_of.GRADES
            and self.word(c) not in words_of.COLOR_OF
        ]
        parts = [self.word(token) for token in (*compounds, head)]
        for child in head.children:
            if self.word(child) == "of" and (target := self.object(child)) is not None:
                inner = self.noun(target)
                if self.word(head) in words_of.PIECES:
                    return inner
                return " ".join((*parts, "of", inner))
        return " ".join(parts)

    def children(self, head: Any, draft: Draft) -> None:
        """Adds the statements of a token's dependents."""
        for child in head.children:
            if child.i in self.claimed:
                continue
            word, dep = self.word(child), child.dep_
            if dep in ("det", "predet", "poss", "nummod", "preconj") or word in ("both", "all"):
                self.determiner(child, head, draft)
            elif dep in ("cc", "punct", "case", "aux"):
                continue
            elif dep in ("relcl", "acl", "ccomp") and child.pos_ in ("VERB", "AUX"):
                self.clause(child, draft)
            elif dep == "appos" or (dep == "conj" and child.pos_ not in ("NOUN", "PROPN", "PRON")):
                if child.pos_ in ("VERB", "AUX"):
                    self.clause(child, draft)
                elif child.pos_ in ("ADJ", "ADV", "ADP"):
                    self.modifier(child, head, draft)
                else:
                    noun, count = draft.noun, draft.count
                    self.phrase(child, draft)
                    draft.noun, draft.count = noun or draft.noun, count
            elif dep == "neg" or word in ("not", "n't"):
                continue
            else:
                self.modifier(child, head, draft)

    def determiner(self, child: Any, head: Any, draft: Draft) -> None:
        """Reads an article, a number, "no", "all" or an owner."""
        word = self.word(child)
        if child.pos_ == "PROPN" or (child.dep_ == "poss" and child.pos_ != "PRON"):
            return  # "French's"
        self.claim([child])
        if word.isdecimal() or word in words_of.NUMBERS:
            draft.count = int(word) if word.isdecimal() else words_of.NUMBERS[word]
        elif word in words_of.NONE:
            draft.count = 0
        elif word in words_of.ALL:
            draft.count = None
        elif word in words_of.ORDINALS:
            self.ordinal(child, draft)

    def modifier(self, child: Any, head: Any, draft: Draft) -> None:
        """An adjective, an adverb or a preposition beside a noun or a verb."""
        word = self.word(child)
        if self.compared(child, draft) or self.relation(child, draft):
            return
        if (target := self.excepted(child)) is not None:
            draft.excluded.append(self.exception(target))
            self.claim(child.subtree)
            return
        if word in ("with", "without", "having"):
            target = self.object(child)
            if target is None:
                return
            if self.possession(target, draft, word == "without"):
                self.claim(child.subtree)
            elif word == "without" and self.word(target) in ("one", "ones", self.word(head)):
                draft.excluded.append(self.exception(target))
                self.claim(child.subtree)
            return
        if word in words_of.IDLE:
            self.claim([child])
            if word == "only":
                draft.count = draft.count or 1
        elif child.pos_ in QUALIFIERS and child.dep_ in QUALIFYING:
            if word in words_of.ORDINALS and child.dep_ not in ("compound", "nmod"):
                self.ordinal(child, draft)
            else:
                self.adjective(child, draft)
            self.children(child, draft)


def _pluralised(item: Description) -> Description:
    """All that a noun fits, instead of one."""
    return replace(item, count=None) if item.count == 1 and item.noun else item


def _singled(item: Description) -> Description:
    """A description of one object whose sizes rank it."""
    if item.count != 1 or not item.sizes:
        return item
    sizes = {
        w for w in item.properties if Grade(*words_of.GRADES.get(w, ("", 0))[:2]) in item.sizes
    }
    return replace(
        item,
        text=" ".join(word for word in item.text.split() if word not in sizes),
        properties=tuple(word for word in item.properties if word not in sizes),
        sizes=(),
        ranks=(*item.ranks, *map(Rank, item.sizes)),
    )


def with_pronoun(part: Description, anchor: Description) -> Description:
    """A description in which "it" stands for another one."""
    if part is anchor:
        return part
    relations = tuple(
        replace(
            r,
            anchors=tuple(
                anchor if not a.text and not a.relations and not a.parts else a for a in r.anchors
            ),
        )
        for r in part.relations
    )
    return replace(part, relations=relations)
