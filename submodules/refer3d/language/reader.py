"""Reads the tree of a sentence as a :class:`Description`.

spaCy's model gives heads and attachments. Which words state places, ranks, numbers and negations is
told by the closed-class words of :mod:`refer3d.language.lexicon`, which also repair its attachments
where descriptions of objects often mislead it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from refer3d.language import lexicon as words_of
from refer3d.language.description import Description, Grade, Rank, Relation
from refer3d.language.tokens import analyze, trigger


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


class Reader:
    """Reads the tree of one sentence."""

    def __init__(self, tokens: Sequence[str]) -> None:
        is_bare = tokens[0] not in words_of.STARTS
        self.words = ["the", *tokens] if is_bare else list(tokens)
        self.doc = analyze(self.words)
        self.claimed: set[int] = set()
        """Tokens that are no part of their phrase's text."""
        self.active: set[int] = set()
        """Heads of the phrases that are being described."""
        self.partners = dict(self.between_partners())
        """The second anchor of each "between"; the tree often hangs it elsewhere."""

    def between_partners(self) -> Iterator[tuple[int, Any]]:
        for index, word in enumerate(self.words):
            if word in ("between", "betwixt") and "and" in self.words[index:]:
                start = self.words.index("and", index)
                if (token := self.noun_after(start + 1)) is not None:
                    yield index, token

    def noun_after(self, start: int) -> Any | None:
        """The head of the noun phrase that begins at a position."""
        for token in self.doc[start : start + 8]:
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

    # -- the whole ---------------------------------------------------------------------------

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
        rest = [self.describe(token) for token in reversed(joined)][::-1]
        for token in joined:
            self.claim(token.subtree)
        first = self.describe(head, others)
        parts = [first, *rest]
        anchor = next((part for part in parts if part.noun), first)
        for index, part in enumerate(parts):  # "what is in it": in the first of them
            parts[index] = _with_pronoun(part, anchor)
        if any(self.word(c) in ("all", "both", "every") for c in head.children):
            parts = [replace(part, count=None) for part in parts]
        return Description(parts=tuple(parts), count=1 if is_any else None)

    def is_empty(self, head: Any) -> bool:
        """Whether a head names no kind of thing."""
        word = self.word(head)
        grade = words_of.GRADES.get(word)
        is_graded = grade is not None and grade[2] != "plain"
        return (
            word in words_of.PRONOUNS or word in words_of.ALL or is_graded or word in words_of.EMPTY
        )

    def conjuncts(self, head: Any) -> Iterator[Any]:
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

    # -- one phrase --------------------------------------------------------------------------

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

    def leftovers(self, scope: Sequence[Any], draft: Draft) -> None:
        """Relations that the tree hangs under a part: "a box of crackers standing near the mug"."""
        for token in scope:
            if token.i in self.claimed or token.pos_ not in ("ADP", "ADV", "ADJ", "SCONJ"):
                continue
            if token.pos_ == "ADP" and self.posture(token.i) and self.place(token, draft):
                self.claim(t for t in self.doc[token.i - 1 : token.i] if t.pos_ == "VERB")
                continue
            match = trigger(self.words, token.i)
            if match is None or (before := self.words[token.i - 1]) == "than":
                continue
            is_posture = before.endswith(("ing", "ed")) or before in words_of.ADVERBS
            is_definite = self.words[token.i + match[1] : token.i + match[1] + 1] == ["the"]
            if match[0] in words_of.AMBIGUOUS and not (
                (is_posture and self.posture(token.i)) or (is_definite and not self.side(token))
            ):
                continue
            if self.words[token.i] in ("by", "against", "with", "around", "before", "along"):
                continue
            if self.relation(token, draft):
                self.claim(self.doc[token.i : token.i + match[1]])
                for i in range(token.i - 1, max(token.i - 4, -1), -1):
                    if (
                        self.words[i] in words_of.ADVERBS
                        or self.lemma(self.doc[i]) in words_of.BEING
                    ):
                        self.claim([self.doc[i]])
                    elif self.words[i] not in ("that", "which", "and", ",", "is"):
                        break
                    else:
                        self.claim([self.doc[i]])

    def side(self, token: Any) -> bool:
        """Whether a preposition leads to a part of the object: "on the front"."""
        target = self.object(token)
        return (
            target is None or self.word(target) == "side" or (self.word(target),) in words_of.PLACES
        )

    def posture(self, index: int) -> bool:
        """Whether a verb of being stands shortly before a position."""
        return any(
            self.lemma(token) in words_of.BEING for token in self.doc[max(index - 3, 0) : index]
        )

    def free_relative(self, verb: Any) -> Any | None:
        """The "what" or "whatever" that a verb says something of."""
        for child in verb.children:
            if child.tag_ in ("WP", "WDT") and child.i <= verb.i:
                return child
        return None

    def phrase(self, head: Any, draft: Draft) -> None:
        """Adds the statements of a noun and its dependents."""
        word = self.word(head)
        grade = words_of.GRADES.get(word)
        is_graded = grade is not None and (grade[2] != "plain") and head.pos_ != "VERB"
        is_pronoun = word in words_of.PRONOUNS or word in words_of.NUMBERS.keys() - {"pair"}
        plural = head.tag_ in ("NNS", "NNPS") or word in words_of.ALL or word in ("ones", "those")
        draft.count = None if plural else 1
        if is_graded:
            self.grade(head, draft)
        elif word == "pair":
            draft.count, draft.noun = None, self.noun(head)
        elif word in words_of.NUMBERS and word != "one":
            draft.count = words_of.NUMBERS[word]
            self.claim([head])
        elif is_pronoun or word in words_of.ALL:
            self.claim([head])
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
        word = self.word(child)
        if child.pos_ == "PROPN" or (child.dep_ == "poss" and child.pos_ != "PRON"):
            return  # "French's"
        self.claim([child])
        if word.isdigit() or word in words_of.NUMBERS:
            draft.count = int(word) if word.isdigit() else words_of.NUMBERS[word]
        elif word in words_of.ALL:
            draft.count = None
        elif word in words_of.ORDINALS:
            self.ordinal(child, draft)

    # -- adjectives and ranks ----------------------------------------------------------------

    def modifier(self, child: Any, head: Any, draft: Draft) -> None:
        """An adjective, an adverb or a preposition beside a noun or a verb."""
        word = self.word(child)
        if self.compared(child, draft) or self.relation(child, draft):
            return
        if word in words_of.EXCEPT or (
            word in ("other", "apart", "aside") and self.object_after(child)
        ):
            target = self.object_after(child)
            if target is not None:
                draft.excluded.append(self.joined(target))
                self.claim(child.subtree)
                return
        if word in ("with", "without", "having"):
            target = self.object(child)
            if target is not None and self.possession(target, draft, word == "without"):
                self.claim(child.subtree)
            return
        if word in (
            "other",
            "same",
            "here",
            "there",
            "only",
            "just",
            "exactly",
            "also",
            "alone",
            "itself",
            "else",
        ):
            self.claim([child])
            if word == "only":
                draft.count = draft.count or 1
            return
        if child.pos_ in ("ADJ", "ADV", "NOUN", "PROPN", "NUM", "VERB") and (
            child.dep_
            in (
                "amod",
                "advmod",
                "acomp",
                "npadvmod",
                "compound",
                "nmod",
                "conj",
                "oprd",
                "attr",
                "dep",
            )
        ):
            if word in words_of.ORDINALS and not self.is_noun_like(child):
                self.ordinal(child, draft)
                self.children(child, draft)
                return
            self.adjective(child, draft)
            self.children(child, draft)

    @staticmethod
    def is_noun_like(token: Any) -> bool:
        return token.dep_ in ("compound", "nmod")

    def adjective(self, token: Any, draft: Draft) -> None:
        """A word that is a colour, a measure or another property."""
        word = self.word(token)
        for piece in dict.fromkeys((word, *word.split("-"))):
            if piece in words_of.COLOR_OF:
                draft.colors.append(words_of.COLOR_OF[piece])
        if word in words_of.GRADES and token.i not in self.claimed:
            self.grade(token, draft)
        elif word not in words_of.PRONOUNS:
            draft.properties.append(word)
            if token.dep_ == "amod" and word in ("stacked", "piled"):
                draft.relations.append(Relation("stacked"))
                self.claim([token])

    def grade(self, token: Any, draft: Draft) -> None:
        """A measurable adjective: it ranks ("tallest", "the taller", "left") or is a property."""
        measure, direction, degree = words_of.GRADES[self.word(token)]
        grade = Grade(measure, direction)
        anchor = None
        if measure == "near":
            for child in (*token.children, *token.head.children):
                if (
                    self.word(child) in ("to", "from")
                    and child.i > token.i
                    and (target := self.object(child)) is not None
                ):
                    if self.words[child.i + 1 : child.i + 2] == ["than"]:
                        continue
                    place = words_of.PLACES.get((self.word(target),))
                    if place:  # "farthest to the left"
                        grade = Grade(place[0], place[1])
                    elif self.word(target) not in words_of.CAMERA:
                        anchor = self.joined(target)
                    self.claim(child.subtree)
        if degree == "plain" and measure not in (
            "right",
            "depth",
            "elevation",
            "centrality",
            "near",
        ):
            draft.sizes.append(grade)
            draft.properties.append(self.word(token))
            return
        position = 1
        for child in (*token.children, *token.head.children):
            if self.word(child) in words_of.ORDINALS and child.i < token.i:
                position = words_of.ORDINALS[self.word(child)]
                self.claim([child])
        self.claim([token, *(c for c in token.children if c.dep_ == "advmod" and c.i < token.i)])
        draft.ranks.append(Rank(grade, position, anchor))

    def ordinal(self, token: Any, draft: Draft) -> None:
        """Read "second tallest", "the third from the left"."""
        position = words_of.ORDINALS[self.word(token)]
        if any(
            words_of.GRADES.get(self.words[i], ("", 0, ""))[2] in ("more", "most")
            for i in range(token.i + 1, min(token.i + 3, len(self.words)))
        ):
            self.claim([token])
            return  # read with the adjective
        rest = " ".join(self.words[token.i + 1 :])
        match = re.search(r"\b(?:from|on|to) the (left|right|front|back|rear|top|bottom)\b", rest)
        if match:
            measure, direction = words_of.PLACES[(match.group(1),)]
            draft.ranks.append(Rank(Grade(measure, direction), position))
            begin = token.i + 1 + len(rest[: match.start()].split())
            self.claimed |= {token.i, begin, begin + 1, begin + 2}

    def compared(self, child: Any, draft: Draft) -> bool:
        """Read "taller than the mug", "closer to the mug than to the bowl"."""
        grade = words_of.GRADES.get(self.word(child))
        if grade is None or grade[2] != "more":
            return False
        than = next((t for t in self.doc[child.i : child.i + 14] if self.word(t) == "than"), None)
        if than is None or than.i in self.claimed:
            return False
        target = self.object(than) or self.noun_after(than.i + 1)
        if self.words[than.i + 1 : than.i + 2] in (["to"], ["from"]):
            target = self.noun_after(than.i + 2)
        if target is None:
            return False
        measure, direction, _ = grade
        to = next((c for c in child.children if self.word(c) in ("to", "from")), None)
        near = self.object(to) if to is not None else None
        if measure == "near" and near is not None:
            second = self.describe(target)
            self.claim(than.subtree)
            self.claim([than])
            anchors = (self.describe(near), second)
            draft.relations.append(Relation("closer" if direction > 0 else "farther", anchors))
        elif self.word(target) in (
            "everything",
            "anything",
            "all",
            "any",
            "others",
            "other",
            "rest",
        ):
            draft.ranks.append(Rank(Grade(measure, direction)))
        else:
            draft.relations.append(
                Relation(words_of.COMPARED[measure, direction], (self.joined(target),))
            )
        self.claim(than.subtree)
        self.claim(child.subtree)
        return True

    # -- relations ---------------------------------------------------------------------------

    def relation(self, child: Any, draft: Draft) -> bool:
        """A phrase of place beside a noun or a verb; False where it is none."""
        if self.place(child, draft):
            return True
        start = min(token.i for token in child.subtree)
        for begin in range(start, child.i + 1):
            match = trigger(self.words, begin)
            if match and begin + match[1] > child.i:
                break
        else:
            return False
        kind, length = match
        end = begin + length
        anchor = self.anchor(child, end)
        if anchor is None or self.words[end : end + 1] in (["its"], ["itself"], ["their"], ["his"]):
            return False
        word = self.word(anchor)
        before = set(self.words[begin:end])
        if before & {"nearest", "closest", "farthest", "furthest"}:
            grade = Grade("near", 1 if before & {"nearest", "closest"} else -1)
            is_camera = word in words_of.CAMERA
            described = None if is_camera else self.joined(anchor)
            self.claim((*child.subtree, *self.doc[begin : anchor.i + 1]))
            draft.ranks.append(Rank(grade, 1, described))
            return True
        if kind == "opposite":
            source = next(
                (t for t in child.head.subtree if self.word(t) == "from" and t.i > end), None
            )
            if source is not None and (target := self.object(source)) is not None:
                draft.relations.append(Relation("far", (self.describe(target),)))
                self.claim(source.subtree)
                self.claim(child.subtree)
                return True
        if word in ("other", "another") and self.words[anchor.i - 1] in ("each", "one", "another"):
            draft.relations.append(Relation("stacked" if kind in ("on", "under") else kind))
        elif kind == "between":
            partner = self.partners.get(end - 1)
            more = [partner] if partner is not None else [*self.conjuncts(anchor)]
            draft.relations.append(Relation(kind, self.pair([anchor, *more])))
        else:
            draft.relations.append(Relation(kind, (self.joined(anchor),)))
        self.claim((*child.subtree, *self.doc[begin : anchor.i + 1]))
        return True

    def pair(self, tokens: Sequence[Any]) -> tuple[Description, ...]:
        """Each of two joined phrases by itself."""
        last = tuple(self.describe(token) for token in tokens[1:2])
        for token in tokens[1:]:
            self.claim(token.subtree)
        return (self.describe(tokens[0]), *last)

    def place(self, child: Any, draft: Draft) -> bool:
        """Read "on the left", "at the back", "in front", "in the middle" without "of" something."""
        if self.word(child) not in ("on", "at", "in", "to", "from", "towards", "near", "toward"):
            return False
        target, verb = self.object(child), child.head
        is_done = (
            verb.pos_ == "VERB" and self.lemma(verb) not in words_of.BEING
        )  # "worn on the back"
        if target is None or is_done:
            return False
        word = self.word(target)
        if word == "side":
            word = next(
                (self.word(c) for c in target.children if (self.word(c),) in words_of.PLACES), word
            )
        place = words_of.PLACES.get((word,))
        inner = next((c for c in target.children if self.word(c) == "of"), None)
        inside = self.object(inner) if inner is not None else None
        around = [self.word(c) for c in target.children if c.i < target.i]
        if set(around) - {"the", "far", "very", "left", "right", "front", "back"} or (
            not around and word not in ("front", "back", "left", "right")
        ):
            return False
        if place is None or (inside is not None and not self.is_scene(inside, word)):
            return False
        self.claim(child.subtree)
        draft.ranks.append(Rank(Grade(*place)))
        return True

    def is_scene(self, token: Any, place: str) -> bool:
        """Whether a place "of" something is one of the whole scene: "the middle of the table"."""
        return self.word(token) in words_of.SCENE or place in words_of.MIDDLES

    def anchor(self, child: Any, end: int) -> Any | None:
        """The noun that a preposition of place leads to."""
        for token in child.subtree:
            if token.i >= end and token.dep_ in ("pobj", "dobj", "pcomp", "attr", "nsubj", "conj"):
                return token
        for token in child.subtree:
            if token.i >= end and token.pos_ in ("NOUN", "PROPN", "PRON", "NUM"):
                return token
        if end < len(self.doc):  # attached elsewhere by mistake
            for token in self.doc[end : end + 6]:
                if token.pos_ in ("NOUN", "PROPN") and token.i not in self.claimed:
                    if token.dep_ in ("compound", "nmod") and token.head.i > token.i:
                        continue
                    if token.head.i >= end - 1 or token.head.i == child.i:
                        return token
                    break
        return None

    # -- clauses -----------------------------------------------------------------------------

    def clause(self, verb: Any, draft: Draft, subject: Any | None = None) -> None:
        """Adds a verb's statement: a place, a comparison, a negation or a property."""
        kids = list(verb.children)
        negations = [c for c in kids if c.dep_ == "neg" or self.word(c) in ("not", "n't", "never")]
        neither = any(self.word(t) == "neither" for t in verb.subtree)
        relative = [
            c
            for c in kids
            if c.tag_ in ("WDT", "WP", "WRB")
            or (
                self.word(c) in ("that", "which")
                and c.dep_ in ("nsubj", "nsubjpass", "dobj", "mark")
            )
        ]
        inner = Draft(noun=draft.noun, count=draft.count) if negations or neither else draft
        if inner is not draft:
            inner.noun = ""
        lemma = self.lemma(verb)
        nouns = [c for c in kids if c.dep_ == "attr" and c.pos_ in ("NOUN", "PROPN", "PRON", "NUM")]
        if inner is not draft and lemma == "be" and nouns:  # "that is not a banana"
            draft.excluded.append(self.joined(nouns[0]))
            self.claim(verb.subtree)
            return
        is_object = any(c.dep_ in ("dobj", "pobj") for c in relative) or (
            not any(c.dep_.startswith("nsubj") for c in relative) and verb.dep_ == "relcl"
        )
        agent = next(
            (
                c
                for c in kids
                if c.dep_.startswith("nsubj")
                and c not in relative
                and (subject is None or c.i != subject.i)
            ),
            None,
        )
        objects = [c for c in kids if c.dep_ in ("dobj", "attr") and c not in relative]
        before = len(inner.relations) + len(inner.ranks)
        if lemma in words_of.HOLDING and (objects or is_object or self.by(verb) is not None):
            kind = words_of.HOLDING[lemma]
            other = self.by(verb) or (agent if is_object and agent is not None else None)
            if other is not None:
                kind = words_of.PASSIVE[kind]
            elif objects:
                other = objects[0]
            if other is not None:
                inner.relations.append(Relation(kind, (self.joined(other),)))
                self.claim(verb.subtree)
        elif is_object and agent is not None and (kind := self.dangling(verb)) is not None:
            inner.relations.append(
                Relation(words_of.INVERSE.get(kind, kind), (self.joined(agent),))
            )
            self.claim(verb.subtree)
        elif lemma in ("have", "has") and objects:
            is_none = any(
                self.word(c) in ("no", "nothing") for o in objects for c in (o, *o.children)
            )
            if self.possession(objects[0], inner, is_none):
                self.claim(verb.subtree)
        else:
            if lemma in words_of.BEING or inner is not draft:
                self.predicate(verb, kids, relative, agent if is_object else None, inner)
        if len(inner.relations) + len(inner.ranks) > before and lemma in words_of.BEING:
            self.claim([verb, *relative])
            self.claim(c for c in kids if c.dep_ in ("aux", "auxpass", "advmod", "prt"))
        if lemma in ("be", "'s"):
            self.claim([verb, *relative])
        if inner is not draft:
            tokens = [
                t
                for t in verb.subtree
                if t.i not in self.claimed
                and t not in negations
                and self.word(t) not in words_of.NEGATIONS
            ]
            excluded = inner.build(self.text(tokens))
            self.claim(verb.subtree)
            if neither or len(inner.colors) > 1:
                draft.excluded += [
                    replace(
                        excluded,
                        text=word,
                        properties=(word,),
                        colors=(words_of.COLOR_OF[word],) if word in words_of.COLOR_OF else (),
                    )
                    for word in inner.properties
                ]
            else:
                draft.excluded.append(excluded)

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
        """The relation of a preposition without an object: "what the spoon lies in"."""
        for child in verb.children:
            if child.dep_ in ("prep", "prt", "advmod") and self.object(child) is None:
                match = trigger(self.words, child.i)
                if match:
                    return match[0]
        return None

    def possession(self, target: Any, draft: Draft, is_negated: bool) -> bool:
        """Tell "with a lid" is a property; "with a can on top (of it)" says where the can is."""
        sides = [t for t in target.subtree if self.word(t) in ("side", "other", "left", "right")]
        partner = [*self.conjuncts(target)]
        if sides and partner and any(self.word(t) == "side" for t in sides):
            pair = [target, partner[0]]
            for token in pair:
                for child in token.children:
                    if child.dep_ == "prep":
                        self.claim(child.subtree)
            draft.relations.append(Relation("between", self.pair(pair)))
            return True
        last = max(token.i for token in target.subtree)
        for token in self.doc[target.i + 1 : last + 4]:
            if self.word(token) in (",", "by"):
                break
            if token.pos_ not in ("ADP", "ADV", "SCONJ") or token.i <= target.i:
                continue
            match = trigger(self.words, token.i)
            kind, length = match or (
                "on" if self.words[token.i : token.i + 2] == ["on", "top"] else "",
                2,
            )
            inner = self.words[token.i + length : token.i + length + 2]
            refers = not inner or inner[0] in ("it", "them", ".", ",", "or", "and")
            if kind in words_of.INVERSE and refers:
                self.claim(token.subtree)
                self.claim(self.doc[token.i : token.i + length + (1 if inner else 0)])
                if token.head.pos_ == "VERB" and self.lemma(token.head) in words_of.BEING:
                    self.claim([token.head])
                other = self.describe(target)
                anchors = () if not other.text and not other.relations else (other,)
                relation = Relation(words_of.INVERSE[kind], anchors)
                if is_negated:
                    draft.excluded.append(Description(relations=(relation,)))
                else:
                    draft.relations.append(relation)
                return True
        return False

    # -- tokens ------------------------------------------------------------------------------

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


def _with_pronoun(part: Description, anchor: Description) -> Description:
    """A part in which "it" stands for another part."""
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
