"""Probability that a phrase names an object, calibrated on the training sentences of the scene.

A frozen encoder compares a phrase with an object's sentences, its noun with their nouns, its words
with their words; WordNet tells whether its noun includes theirs. The similarity from which on a
phrase means an object depends on the encoder and on the scene. So two logistic regressions, for
names ("the blue mug") and for clauses ("something to drink from"), learn it from sentences that are
left out: of their own object, and of the others, which are sentences about an object that is not
there. Nouns that include what an object is called, and nouns beside it, are further examples.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from refer3d.language import Description, correct, kinds, parse
from refer3d.text_encoder import TextEncoder
from refersplat.language.calibration import FEATURES, PRIOR, Example, Regression
from refersplat.language.phrases import Phrase, is_among, names_degree, parts

NEAREST_SHARPNESS = 4.0
"""Weight of a group's nearest sentence over its others, per unit of similarity from that of
unrelated words (0) to that of equal ones (1)."""
RIDGE = 0.7
"""Regularisation of the linear classifier, per mean square of the centred embeddings."""
RELATIVES = 6
"""Nouns that include a group's, and nouns beside it, in the calibration."""
CANDIDATES = 24
"""Nouns beside a group's of which the most similar ones are taken."""


class Vocabulary:
    """Words and sentences about the groups of a scene."""

    def __init__(
        self,
        sentences: Sequence[Sequence[str]],
        encoder: TextEncoder,
        without: Collection[str] = (),
        state: dict[str, Any] | None = None,
    ) -> None:
        """Encodes the training sentences and calibrates, or takes both from a ``state``.

        Args:
            sentences: Those of each of the G groups.
            encoder: The frozen language model.
            without: Ablations, as in ``match.without``.
            state: Returned by :meth:`state_dict` with the same sentences and encoder. One of
                another version, with other features or texts, is left aside.

        Raises:
            ValueError: There is no sentence.
        """
        if not any(sentences):
            raise ValueError("sentences: expected one of some group, got none; leave groups out")
        self.encoder, self.count = encoder, len(sentences)
        self.without = frozenset(without)
        self.owners = [group for group, texts in enumerate(sentences) for _ in texts]
        self.words: list[str] = []
        self.descriptions = [self.parse(text) for texts in sentences for text in texts]
        firsts = [item.parts[0] if item.parts else item for item in self.descriptions]
        self.phrases = [Phrase.of(item, is_sentence=True) for item in firsts]
        self.words = list(dict.fromkeys(word for phrase in self.phrases for word in phrase.words))
        self.spoken: list[set[str]] = [set() for _ in range(self.count)]
        """Words said of each group."""
        for phrase, owner in zip(self.phrases, self.owners, strict=True):
            self.spoken[owner] |= {*phrase.words}
        named = (parts(self._nouns(group)) for group in range(self.count))
        self.heads = [{name.rpartition(" ")[2] for name in names} for names in named]
        """Nouns that each group is called, without their compounds."""
        self.background = self._background()
        texts = self._texts()
        if state and (state.get("features") != list(FEATURES) or state.get("texts") != texts):
            state = None  # of another version, or another parser's
        self._encode(texts, state["embeddings"] if state else None)
        self.regressions = {k: Regression.prior(w, self.noise) for k, w in PRIOR.items()}
        if state:
            self.regressions = {k: Regression(**r) for k, r in state["regressions"].items()}
        elif "fitted_weights" not in self.without:
            self._calibrate()

    def parse(self, sentence: str, is_near: bool = False) -> Description:
        """Parses a sentence, with "it" as the nearest noun if asked for; without decomposition all
        of it describes the object.
        """
        if "decomposition" in self.without:
            return Description(text=sentence)
        return parse(correct(sentence, self.words), is_near)

    def embed(self, phrases: Sequence[Phrase]) -> dict[str, Tensor]:
        """Encodes the texts of phrases that the scene's sentences do not have, in one batch."""
        distinct = dict.fromkeys(text for phrase in phrases for text in phrase.texts)
        if unknown := [text for text in distinct if text not in self.embedded]:
            new = dict(zip(unknown, self.encoder(unknown).embeddings, strict=True))
            return self.embedded | new
        return self.embedded

    @torch.no_grad()
    def probabilities(self, phrases: Sequence[Phrase]) -> Tensor:  # [B, G]
        """Returns the probability that each phrase names each group."""
        features = self._features(phrases, self.embed(phrases))
        rows = [
            self.regressions["clause" if phrase.kind == "clause" else "name"](scores)
            for phrase, scores in zip(phrases, features, strict=True)
        ]
        return torch.stack(rows).sigmoid()

    def state_dict(self) -> dict[str, Any]:
        """Returns tensors and plain values."""
        return {
            "features": list(FEATURES),
            "texts": self._texts(),
            "embeddings": torch.cat([self.texts, self.nouns, self.word_embeddings]),
            "regressions": {kind: asdict(model) for kind, model in self.regressions.items()},
        }

    def called(self, phrase: Phrase) -> Tensor:  # [G] bool
        """Whether each group is called by a phrase's very noun."""
        return torch.tensor([is_among(phrase.head, heads) for heads in self.heads])

    def _nouns(self, group: int, left_out: int | None = None) -> tuple[str, ...]:
        """Nouns that a group is called in its sentences, but for one."""
        rows = (i for i, owner in enumerate(self.owners) if owner == group and i != left_out)
        return tuple(self.phrases[row].noun for row in rows if self.phrases[row].head)

    def _background(self) -> set[str]:
        """Nouns of what sentences mention beside the groups, as the table that all stand on: no
        group is called so, and none or several are described with it, or several are on it.
        """
        users: dict[str, set[int]] = {}
        grounds: set[str] = set()
        for description, owner in zip(self.descriptions, self.owners, strict=True):
            for relation in description.relations:
                for head in {Phrase.of(anchor).head for anchor in relation.anchors} - {""}:
                    users.setdefault(head, set()).add(owner)
                    grounds |= {head} if relation.kind == "on" else set()
        said = {head: sum(is_among(head, words) for words in self.spoken) for head in users}
        names = {phrase.head for phrase in self.phrases}
        called = {name.rpartition(" ")[2] for name in parts([p.noun for p in self.phrases])}
        called |= {word for p in self.phrases if not p.head for word in p.words}
        beside = {head for head in users if said[head] not in (1, 2) and not is_among(head, names)}
        # A desk lamp is no desk.
        shared = {head for head in grounds if len(users[head]) > 1 and not is_among(head, called)}
        return beside | shared

    def _texts(self) -> list[str]:
        """Texts, nouns and words of the sentences, as they are encoded."""
        return [*(p.text for p in self.phrases), *(p.noun for p in self.phrases), *self.words]

    def _encode(self, texts: list[str], embedded: Tensor | None) -> None:
        phrases, count = self.phrases, len(self.phrases)
        if embedded is None:
            distinct = {text: row for row, text in enumerate(dict.fromkeys(texts))}
            embedded = self.encoder(list(distinct)).embeddings[[distinct[text] for text in texts]]
        self.embedded = dict(zip(texts, embedded, strict=True))
        """[T] of each text of the scene."""
        self.texts, self.nouns = embedded[:count], embedded[count : 2 * count]
        self.word_embeddings = embedded[2 * count :]
        self.member = F.one_hot(torch.tensor(self.owners), self.count).float()  # [S, G]
        index = {word: row for row, word in enumerate(self.words)}
        self.uses, self.naming = torch.zeros(2, count, len(self.words))
        for row, phrase in enumerate(phrases):
            self.uses[row, [index[word] for word in phrase.words]] = 1
            self.naming[row, [index[word] for word in phrase.naming]] = 1
        similar = self.word_embeddings @ self.word_embeddings.T
        pairs = similar[torch.ones_like(similar, dtype=torch.bool).triu(diagonal=1)]
        self.noise = float(pairs.median().clamp(max=0.99)) if len(pairs) else 0.0
        """Similarity of words that have nothing in common, in this encoder."""
        self.mean = self.texts.mean(dim=0)
        centred = self.texts - self.mean
        gram = centred @ centred.T
        strength = RIDGE * gram.diagonal().mean().clamp(min=1e-6)
        inverse = torch.linalg.inv(gram + strength * torch.eye(count))
        targets = self.member - self.member.mean(dim=0)
        self.ridge = centred.T @ inverse @ targets  # [T, G]
        # The prediction without a sentence follows from the one with it in closed form.
        hat, influence = gram @ inverse, (gram @ inverse).diagonal()[:, None]
        self.ridge_left_out = (hat @ targets - influence * targets) / (1 - influence)  # [S, G]

    def _features(
        self, phrases: Sequence[Phrase], embedded: dict[str, Tensor], left_out: int | None = None
    ) -> Tensor:  # [B, G, F]
        """Compares phrases with groups, without the training sentence ``left_out``: that of the
        first phrase.
        """
        text, noun = (torch.stack([embedded[p.texts[i]] for p in phrases]) for i in range(2))
        member = self.member.bool()
        if left_out is not None:
            member = member.clone()
            member[left_out] = False
        similar = (text @ self.texts.T)[:, :, None].expand(-1, -1, self.count)  # [B, S, G]
        sharpness = NEAREST_SHARPNESS / (1 - self.noise)
        logits = (sharpness * similar).masked_fill(~member, -torch.inf)
        nearest = (logits.softmax(dim=1).nan_to_num(nan=0.0) * similar).sum(dim=1)
        nouns = (noun @ self.nouns.T)[:, :, None].expand_as(similar)
        said, naming = (
            (member.float().T @ uses > 0)[:, :, None] for uses in (self.uses, self.naming)
        )
        kind = torch.tensor([self._degrees(phrase, left_out) for phrase in phrases])
        words = []
        for row, phrase in zip(kind, phrases, strict=True):
            is_name = phrase.kind == "name" and kinds.senses(phrase.head)
            is_head = torch.tensor([bool(is_name) and word == phrase.head for word in phrase.words])
            known = torch.where(is_head, naming, said)  # [G, V, W]
            covered = self._covered(torch.stack([embedded[w] for w in phrase.words]), known)
            words.append(torch.where(is_head[:, None] & (row == 1), 1.0, covered))
        ridge = (text - self.mean) @ self.ridge
        if left_out is not None:
            ridge[0] = self.ridge_left_out[left_out]
        features = [
            nearest,
            nouns.masked_fill(~member, -1).amax(dim=1),
            torch.stack([rows.mean(dim=0) for rows in words]),
            kind,
            ridge,
        ]
        return torch.stack(features, dim=-1) * self._used()

    def _degrees(self, phrase: Phrase, left_out: int | None) -> list[float]:
        """Degree to which each group is called by a phrase's noun; of a complement, whether any of
        the words said of a group is.
        """
        if phrase.kind == "content":
            said = (filter(None, map(kinds.senses, words)) for words in self.spoken)
            return [
                max((kinds.degree(phrase.noun, found) for found in group), default=kinds.UNKNOWN)
                for group in said
            ]
        called = (self._nouns(group, left_out) for group in range(self.count))
        return [names_degree(phrase, nouns) for nouns in called]

    def _used(self) -> Tensor:  # [F]
        """1 for features in use, 0 for ablated ones."""
        return torch.tensor([float(name not in self.without) for name in FEATURES])

    def _covered(self, words: Tensor, known: Tensor) -> Tensor:  # [W, T], [G, V, 1] -> [W, G]
        """Similarity of words to the most similar word of each group."""
        similar = (self.word_embeddings @ words.T)[None].expand(len(known), -1, -1)  # [G, V, W]
        return similar.masked_fill(~known, -1).amax(dim=1).T

    def _may_name(self, query: Phrase, group: int) -> bool:
        """Whether a name may be one of a group's, too: "box", or "container"."""
        if all(is_among(word, self.spoken[group]) for word in query.words):
            return True
        return query.noun == query.head and names_degree(query, self._nouns(group)) == 1

    def _relatives(self, group: int) -> dict[Example, list[Phrase]]:
        """Nouns that include what a group is called, and nouns of absent things beside it."""
        called = self._nouns(group)
        found = kinds.common_senses(parts(called))
        wider, beside = (
            [Phrase.of_noun(noun) for noun in nouns]
            for nouns in (kinds.superordinates(found), kinds.siblings(found))
        )
        beside = [phrase for phrase in beside if names_degree(phrase, called) < 0.5]
        beside = beside[:: max(len(beside) // CANDIDATES, 1)]
        embedded, nouns = self.embed(beside), self.nouns[[o == group for o in self.owners]]
        beside.sort(key=lambda phrase: -float((nouns @ embedded[phrase.noun]).max()))
        return {Example.WIDER: wider[:RELATIVES], Example.BESIDE: beside[:RELATIVES]}

    def _examples(self) -> dict[str, list[tuple[Tensor, Example]]]:
        """Features of sentences that are left out, whole and as bare names, and of other nouns."""
        examples: dict[str, list[tuple[Tensor, Example]]] = {kind: [] for kind in PRIOR}
        relatives = [self._relatives(group) for group in range(self.count)]
        related = [
            phrase for sorts in relatives for phrases in sorts.values() for phrase in phrases
        ]
        embedded = self.embed([*related, *(q for p in self.phrases for q in (p, *p.names()))])
        for index, (phrase, owner) in enumerate(zip(self.phrases, self.owners, strict=True)):
            phrases = [phrase, *phrase.names()]
            features = self._features(phrases, embedded, index)
            for query, scores in zip(phrases, features, strict=True):
                for group in range(self.count):
                    if group == owner and self.owners.count(owner) == 1:
                        continue  # nothing is left to compare with
                    if group != owner and query is not phrase and self._may_name(query, group):
                        continue
                    example = Example.OWN if group == owner else Example.OTHER
                    examples[query.kind].append((scores[group], example))
        for group, sorts in enumerate(relatives):
            for example, phrases in sorts.items():
                if phrases:
                    features = self._features(phrases, embedded)
                    examples["name"] += [(scores[group], example) for scores in features]
        return examples

    def _calibrate(self) -> None:
        """Fits the regressions of which there are examples of both classes."""
        for kind, examples in self._examples().items():
            if {Example.OWN, Example.OTHER} <= {example for _, example in examples}:
                # The classifier of sentences compares groups: it cannot tell that none is meant.
                used = torch.tensor([float(kind == "clause" or n != "ridge") for n in FEATURES])
                self.regressions[kind] = Regression.fit(
                    torch.stack([scores for scores, _ in examples]),
                    [example for _, example in examples],
                    torch.tensor(PRIOR[kind]) * self._used(),
                    used * self._used(),
                )
