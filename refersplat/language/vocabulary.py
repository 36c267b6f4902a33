"""Probability that a phrase names an object, calibrated on the training sentences of the scene.

A frozen encoder compares a phrase with an object's sentences, its noun with their nouns, its words
with their words. The similarity from which on a phrase means an object depends on the encoder and
on the scene. So two logistic regressions, for names ("the blue mug") and for clauses ("something to
drink from"), learn it from sentences that are left out: of their own object, and of the others,
which are sentences about an object that is not there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from refer3d.language import COLORS, Description, correct, parse
from refer3d.text_encoder import TextEncoder

NEAREST_SHARPNESS = 5.0
"""Weight of a group's nearest sentence over its others, per unit of cosine."""
RIDGE = 0.5
"""Regularisation of the linear classifier; the embeddings have length one."""
FEATURES = ("nearest", "noun", "head", "words", "rarest", "called", "spoken", "ridge")
"""Similarity to the nearest sentences and to their nouns; of the head and of all words, mean and
least, to the group's words; whether the group is called by the head; share of the scene's words in
the phrase that are said of the group; a linear classifier of sentences, for clauses."""
PRIOR = {
    "name": (0.6, 0.6, 0.6, 0.3, 0.3, 0.5, 0.5, 0.0),
    "clause": (0.8, 0.3, 0.0, 0.3, 0.3, 0.0, 0.0, 0.6),
}
"""Weights of ``FEATURES``, per standard deviation, before anything is known of the scene."""
PRIOR_BIAS = -2.0
PRIOR_STRENGTH = 0.03
"""Cost of a squared departure from the prior weights."""
PRIOR_COSINES = (0.35, 0.1)
"""Mean and deviation of features of phrases that do not match, before any are known."""
UNKNOWN_WORDS = 0.25
"""Value of the feature ``spoken`` where no sentence of the scene has a word of the phrase."""
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
    """A key of ``PRIOR``."""

    @classmethod
    def of(cls, item: Description, is_sentence: bool = False) -> Phrase:
        """Collects the texts; names go without colours, which the scene shows."""
        text, kind = item.text, "clause" if is_sentence or is_clause(item) else "name"
        if kind == "name" and item.colors:
            text = " ".join(word for word in text.split() if word not in COLOR_WORDS)
        text = text or item.text or "thing"
        noun = item.noun or text
        head = item.noun.split(" of ")[0].rpartition(" ")[2]
        return cls(text, noun, head, content_words(text) or (text,), kind)

    @property
    def texts(self) -> tuple[str, ...]:
        """Everything to encode."""
        return (self.text, self.noun, self.head or self.text, *self.words)

    def names(self) -> list[Phrase]:
        """Its noun with compounds, and alone."""
        if not self.head:
            return []
        nouns = dict.fromkeys((self.noun, self.head))
        return [Phrase(n, n, self.head, content_words(n) or (self.head,)) for n in nouns]


def is_clause(item: Description) -> bool:
    """Whether a phrase tells a use or a property in a clause instead of a name."""
    if not item.noun:
        return len(item.text.split()) > len(item.properties) + len(item.colors)
    return not item.text.endswith(item.noun.rpartition(" ")[2])


def content_words(text: str) -> tuple[str, ...]:
    """Distinct words of a text without function words."""
    from spacy.lang.en.stop_words import STOP_WORDS

    words = re.findall(r"\w+(?:[-'.]\w+)*", text.lower())
    return tuple(dict.fromkeys(w for w in words if w not in STOP_WORDS and len(w) > 1))


def is_among(word: str, words: Collection[str]) -> bool:
    """Whether a noun is among words, in the singular or in the plural."""
    forms = (word, word.removesuffix("s"), word.removesuffix("es"), word + "s")
    return bool(word) and any(form in words for form in forms)


@dataclass(frozen=True)
class Regression:
    """A logistic regression on standardised features."""

    mean: Tensor
    deviation: Tensor
    weights: Tensor
    bias: Tensor

    @classmethod
    def prior(cls, weights: Sequence[float]) -> Regression:
        """Returns the regression for a scene without data to fit it to."""
        mean, deviation = torch.tensor(PRIOR_COSINES)[:, None].expand(-1, len(weights))
        return cls(mean, deviation, torch.tensor(weights), torch.tensor(PRIOR_BIAS))

    @classmethod
    def fit(cls, inputs: Tensor, labels: Tensor, weights: Tensor, used: Tensor) -> Regression:
        """Fits to features [M, F] and labels [M], of which both classes weigh the same.

        Args:
            inputs: Features.
            labels: 1 where a phrase names a group, else 0.
            weights: [F] prior weights.
            used: [F] 1 for features that may get a weight, else 0.
        """
        negative = inputs[labels == 0]
        mean, deviation = negative.mean(dim=0), negative.std(dim=0).clamp(min=0.05)
        scores = (inputs - mean) / deviation
        balance = torch.where(labels == 1, 0.5 / labels.sum(), 0.5 / (1 - labels).sum())
        prior = torch.cat([weights, torch.tensor([PRIOR_BIAS])])
        change = torch.zeros_like(prior, requires_grad=True)
        allowed = torch.cat([used, torch.ones(1)])
        optimizer = torch.optim.LBFGS([change], max_iter=60, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            fitted = prior + change * allowed
            logits = scores @ fitted[:-1] + fitted[-1]
            wrong = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
            total = (balance * wrong).sum() + PRIOR_STRENGTH * change[:-1].square().sum()
            total.backward()
            return total

        with torch.inference_mode(False), torch.enable_grad():
            optimizer.step(loss)
        fitted = (prior + change * allowed).detach()
        return cls(mean, deviation, fitted[:-1], fitted[-1])

    def __call__(self, features: Tensor) -> Tensor:  # [..., F] -> [...]
        """Returns log odds."""
        return (features - self.mean) / self.deviation @ self.weights + self.bias


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
            state: Returned by :meth:`state_dict` with the same sentences and encoder.
        """
        if state and state.get("features") != list(FEATURES):
            state = None  # of a version with others
        self.encoder, self.count = encoder, len(sentences)
        self.without = frozenset(without)
        self.owners = [group for group, texts in enumerate(sentences) for _ in texts]
        self.words: list[str] = []
        self.descriptions = [self.parse(text) for texts in sentences for text in texts]
        firsts = [item.parts[0] if item.parts else item for item in self.descriptions]
        self.phrases = [Phrase.of(item, is_sentence=True) for item in firsts]
        self.words = list(dict.fromkeys(word for phrase in self.phrases for word in phrase.words))
        self.spoken, self.called = self._words_of_groups()
        self.background = self._background()
        self._encode(state["embeddings"] if state else None)
        self.regressions = {kind: Regression.prior(weights) for kind, weights in PRIOR.items()}
        if state:
            self.regressions = {k: Regression(**r) for k, r in state["regressions"].items()}
        elif "fitted_weights" not in self.without:
            self._calibrate()

    def parse(self, sentence: str) -> Description:
        """Parses a sentence; without decomposition all of it describes the object."""
        if "decomposition" in self.without:
            return Description(text=sentence)
        return parse(correct(sentence, self.words))

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
        rows = [self.regressions[p.kind](f) for p, f in zip(phrases, features, strict=True)]
        return torch.stack(rows).sigmoid()

    def state_dict(self) -> dict[str, Any]:
        """Returns tensors and plain values."""
        return {
            "features": list(FEATURES),
            "embeddings": torch.cat([self.texts, self.nouns, self.word_embeddings]),
            "regressions": {kind: asdict(model) for kind, model in self.regressions.items()},
        }

    def _words_of_groups(
        self, left_out: int | None = None
    ) -> tuple[list[set[str]], list[set[str]]]:
        """Words said of each group, and nouns that it is called by."""
        spoken: list[set[str]] = [set() for _ in range(self.count)]
        called: list[set[str]] = [set() for _ in range(self.count)]
        for index, (phrase, owner) in enumerate(zip(self.phrases, self.owners, strict=True)):
            if index != left_out:
                spoken[owner] |= {*phrase.words}
                called[owner] |= {phrase.head} - {""}
        return spoken, called

    def _background(self) -> set[str]:
        """Nouns of what sentences mention beside the groups, as the table that all stand on: no
        group is called so, and none or several are described with it.
        """
        anchors = (a for d in self.descriptions for r in d.relations for a in r.anchors)
        heads = {Phrase.of(anchor).head for anchor in anchors} - {""}
        users = {head: sum(is_among(head, words) for words in self.spoken) for head in heads}
        names = set().union(*self.called)
        return {head for head in heads if users[head] not in (1, 2) and not is_among(head, names)}

    def _encode(self, embedded: Tensor | None) -> None:
        phrases, count = self.phrases, len(self.phrases)
        texts = [p.text for p in phrases] + [p.noun for p in phrases] + self.words
        if embedded is None:
            distinct = {text: row for row, text in enumerate(dict.fromkeys(texts))}
            embedded = self.encoder(list(distinct)).embeddings[[distinct[text] for text in texts]]
        self.embedded = dict(zip(texts, embedded, strict=True))
        """[T] of each text of the scene."""
        self.texts, self.nouns = embedded[:count], embedded[count : 2 * count]
        self.word_embeddings = embedded[2 * count :]
        self.member = F.one_hot(torch.tensor(self.owners), self.count).float()  # [S, G]
        index = {word: row for row, word in enumerate(self.words)}
        self.uses = torch.zeros(count, len(self.words))
        for row, phrase in zip(self.uses, phrases, strict=True):
            row[[index[word] for word in phrase.words]] = 1
        self.mean = self.texts.mean(dim=0)
        centred = self.texts - self.mean
        gram = centred @ centred.T
        inverse = torch.linalg.inv(gram + RIDGE * torch.eye(count))
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
        text, noun, head = (
            torch.stack([embedded[phrase.texts[i]] for phrase in phrases]) for i in range(3)
        )
        member, (spoken, called) = self.member.bool(), (self.spoken, self.called)
        if left_out is not None:
            member = member.clone()
            member[left_out] = False
            spoken, called = self._words_of_groups(left_out)
        similar = (text @ self.texts.T)[:, :, None].expand(-1, -1, self.count)  # [B, S, G]
        logits = (NEAREST_SHARPNESS * similar).masked_fill(~member, -torch.inf)
        nearest = (logits.softmax(dim=1).nan_to_num(nan=0.0) * similar).sum(dim=1)
        nouns = (noun @ self.nouns.T)[:, :, None].expand_as(similar)
        known = (member.float().T @ self.uses > 0)[:, :, None]  # [G, V, 1]
        words = [
            self._covered(torch.stack([embedded[word] for word in phrase.words]), known)
            for phrase in phrases
        ]
        everything = set().union(*spoken)
        lexical = torch.full((2, len(phrases), self.count), UNKNOWN_WORDS)
        for row, phrase in enumerate(phrases):
            lexical[0, row] = torch.tensor(
                [float(is_among(phrase.head, names)) for names in called]
            )
            if shared := [word for word in phrase.words if is_among(word, everything)]:
                counts = [sum(is_among(word, group) for word in shared) for group in spoken]
                lexical[1, row] = torch.tensor(counts) / len(shared)
        ridge = (text - self.mean) @ self.ridge
        if left_out is not None:
            ridge[0] = self.ridge_left_out[left_out]
        return (
            torch.stack(
                [
                    nearest,
                    nouns.masked_fill(~member, 0).amax(dim=1),
                    self._covered(head, known),
                    torch.stack([rows.mean(dim=0) for rows in words]),
                    torch.stack([rows.amin(dim=0) for rows in words]),
                    *lexical,
                    ridge,
                ],
                dim=-1,
            )
            * self._used()
        )

    def _used(self) -> Tensor:  # [F]
        """1 for features in use, 0 for ablated ones."""
        return torch.tensor([float(name not in self.without) for name in FEATURES])

    def _covered(self, words: Tensor, known: Tensor) -> Tensor:  # [W, T], [G, V, 1] -> [W, G]
        """Similarity of words to the most similar word of each group."""
        similar = (self.word_embeddings @ words.T)[None].expand(len(known), -1, -1)  # [G, V, W]
        return similar.masked_fill(~known, 0).amax(dim=1).T

    def _calibrate(self) -> None:
        """Fits the regressions to sentences that are left out, whole and as bare names."""
        rows: dict[str, tuple[list[Tensor], list[float]]] = {kind: ([], []) for kind in PRIOR}
        embedded = self.embed([q for p in self.phrases for q in (p, *p.names())])
        for index, (phrase, owner) in enumerate(zip(self.phrases, self.owners, strict=True)):
            phrases = [phrase, *phrase.names()]
            features = self._features(phrases, embedded, index)
            for query, scores in zip(phrases, features, strict=True):
                inputs, labels = rows[query.kind]
                for group in range(self.count):
                    if group == owner and self.owners.count(owner) == 1:
                        continue  # nothing is left to compare with
                    words = self.spoken[group]
                    if group != owner and query is not phrase and all(
                        is_among(word, words) for word in query.words
                    ):  # fmt: skip
                        continue  # "box" may be said of other boxes
                    inputs.append(scores[group])
                    labels.append(float(group == owner))
        for kind, (inputs, labels) in rows.items():
            if 0 < sum(labels) < len(labels):
                prior = torch.tensor(PRIOR[kind]) * self._used()
                # The classifier of sentences compares groups: it cannot tell that none is meant.
                used = torch.tensor([float(kind == "clause" or n != "ridge") for n in FEATURES])
                self.regressions[kind] = Regression.fit(
                    torch.stack(inputs), torch.tensor(labels), prior, used * self._used()
                )
