"""Places of objects: prepositions and what they lead to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from refer3d.language import lexicon as words_of
from refer3d.language.description import Description, Grade, Rank, Relation
from refer3d.language.ranks import RankReader
from refer3d.language.tokens import trigger
from refer3d.language.tree import Draft


class RelationReader(RankReader):
    """Reads relations to other objects, and places in the whole scene."""

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
        if child.dep_ == "amod" and child.i < child.head.i:
            return False  # "the nearest cup"
        anchor = self.anchor(child, end)
        if anchor is None or self.words[end : end + 1] in (["its"], ["itself"], ["their"], ["his"]):
            return False
        word = self.word(anchor)
        if kind in ("near", "far") and word in words_of.CAMERA:  # "closer to me"
            draft.ranks.append(Rank(Grade("near", 1 if kind == "near" else -1)))
            self.claim((*child.subtree, *self.doc[begin : anchor.i + 1]))
            return True
        before = set(self.words[begin:end])
        degrees = {words_of.GRADES[w][2] for w in before if w in words_of.GRADES}
        if "most" in degrees or ("more" in degrees and draft.count is not None):
            grade = Grade("near", 1 if kind == "near" else -1)
            is_camera = word in words_of.CAMERA
            if (place := words_of.PLACES.get((word,))) is not None:  # "nearest the back"
                grade = Grade(place[0], place[1] * grade.direction)
                is_camera = True
            described = None if is_camera else self.other(anchor, draft)
            if self.is_reciprocal(anchor):
                described = Description(text=draft.noun, noun=draft.noun, count=None)
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
        if self.is_reciprocal(anchor):
            draft.relations.append(Relation("stacked" if kind in ("on", "under") else kind))
        elif kind == "between":
            partner = self.partners.get(end - 1)
            more = [partner] if partner is not None else [*self.conjuncts(anchor)]
            draft.relations.append(Relation(kind, self.pair([anchor, *more])))
        else:
            described = self.other(anchor, draft)
            if kind in words_of.FACING and described == Description(count=None):
                draft.ranks.append(Rank(Grade(*words_of.FACING[kind])))  # "left of all others"
            else:
                draft.relations.append(Relation(kind, (described,)))
        self.claim((*child.subtree, *self.doc[begin : anchor.i + 1]))
        return True

    def is_reciprocal(self, token: Any) -> bool:
        """Whether a word ends "each other" or "one another"."""
        pair = tuple(self.words[token.i - 1 : token.i + 1])
        return pair in (("each", "other"), ("one", "another"))

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
        if target is None or (verb.pos_ == "VERB" and self.lemma(verb) not in words_of.BEING):
            return False  # "worn on the back"
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
            not around and word not in ("front", "back", "left", "right", "top")
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

    def possession(self, target: Any, draft: Draft, is_negated: bool = False) -> bool:
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
            if token.pos_ not in ("ADP", "ADV", "ADJ", "SCONJ"):
                continue
            match = trigger(self.words, token.i)
            kind, length = match or ("", 1)
            if kind == "on" and self.words[token.i + 1 : token.i + 2] == ["top"]:
                length = max(length, 2)
            inner = self.words[token.i + length : token.i + length + 2]
            refers = not inner or inner[0] in ("it", "them", ".", ",", "or", "and")
            if kind in words_of.INVERSE and refers:
                self.claim(token.subtree)
                self.claim(self.doc[token.i : token.i + length + (1 if inner else 0)])
                if token.head.pos_ == "VERB" and self.lemma(token.head) in words_of.BEING:
                    self.claim([token.head])
                other = self.describe(target)
                is_anything = not other.text and not other.relations
                anchors = () if is_anything else (replace(other, count=other.count or 1),)
                relation = Relation(words_of.INVERSE[kind], anchors)
                if is_negated or other.count == 0:
                    draft.excluded.append(Description(relations=(relation,)))
                else:
                    draft.relations.append(relation)
                return True
        return False

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
