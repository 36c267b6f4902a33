"""Adjectives that rank or compare: "second tallest", "closer to the mug than to the bowl"."""

from __future__ import annotations

import re
from typing import Any

from refer3d.language import lexicon as words_of
from refer3d.language.description import Grade, Rank, Relation
from refer3d.language.tree import Draft, Tree

RANKING = ("right", "depth", "elevation", "centrality", "near")
"""Measures by which a plain adjective ranks: "the left mug"."""


class RankReader(Tree):
    """Reads measures, orders and comparisons."""

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
                        anchor = self.other(target, draft)
                    self.claim(child.subtree)
        if degree == "plain" and measure not in RANKING:
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
        match = re.search(r"\b(from|on|to) the (left|right|front|back|rear|top|bottom)\b", rest)
        if match:
            measure, direction = words_of.PLACES[(match.group(2),)]
            if position < 0 and match.group(1) != "from":  # "the last one on the right"
                position = -position
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
        near = self.object(to) if to is not None else self.noun_after(child.i + 1, than.i)
        if measure == "near" and near is not None:
            second = self.describe(target)
            self.claim(than.subtree)
            self.claim([than])
            is_camera = self.word(near) in words_of.CAMERA
            anchors = (second,) if is_camera else (self.describe(near), second)
            self.claim(near.subtree)
            draft.relations.append(Relation("closer" if direction > 0 else "farther", anchors))
        elif self.word(target) in words_of.ALL | words_of.OTHERS:
            draft.ranks.append(Rank(Grade(measure, direction)))
        else:
            draft.relations.append(
                Relation(words_of.COMPARED[measure, direction], (self.other(target, draft),))
            )
        self.claim(than.subtree)
        self.claim(child.subtree)
        return True
