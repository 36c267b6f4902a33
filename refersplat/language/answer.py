"""Responses of the Gaussians to sentences: of the groups that each means, or of the field."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from refer3d.language import COLORS
from refer3d.runs.config import from_mapping
from refer3d.runs.errors import InputError
from refer3d.text_encoder import TextEncoder
from refersplat.cameras import Camera
from refersplat.config import Config, MatchConfig
from refersplat.field.network import ReferringField
from refersplat.language.execute import Executor, Result
from refersplat.language.groups import SURE, Groups
from refersplat.language.places import Places
from refersplat.language.vocabulary import Vocabulary

NAMED_COLOR = 0.6
"""Degree of a colour that sentences name but the scene does not show."""
PRONOUN = re.compile(r"\b(?:it|them)\b", re.IGNORECASE)
"""What may stand for one noun or for another."""
VISIBLE_COLOR = 0.3
"""Visible share at which a colour that no sentence names is as probable as not."""


class GroupResponses(NamedTuple):
    """Responses of the Gaussians to B sentences."""

    logits: Tensor
    """[B, N], to be blended before the sigmoid."""
    results: list[Result | None]
    """The groups that each means; None where the field responds."""


@dataclass(frozen=True)
class Language:
    """Groups of Gaussians, and the vocabulary that finds those of a new sentence."""

    groups: Groups
    vocabulary: Vocabulary
    group_of: dict[str, int]
    """The group of each training sentence."""
    options: MatchConfig
    categories: tuple[str | None, ...]
    """The most frequent category of each group's sentences."""

    @classmethod
    def fit(
        cls,
        groups: Groups,
        sentences: Sequence[str],
        encoder: TextEncoder,
        options: MatchConfig,
        categories: Sequence[str | None] = (),
    ) -> Language:
        """Calibrates the vocabulary on the training sentences.

        Args:
            groups: The groups, with rows of sentences.
            sentences: The training sentences.
            encoder: The frozen language model.
            options: Ablations and the tolerance.
            categories: Category of each sentence's object, which only names the groups.
        """
        categories = categories or [None] * len(sentences)
        texts = [[sentences[row] for row in rows] for rows in groups.sentences]
        vocabulary = Vocabulary(texts, encoder, options.without)
        group_of = {text: group for group, rows in enumerate(texts) for text in rows}
        counts = [Counter(categories[row] for row in rows) for rows in groups.sentences]
        named = tuple(count.most_common(1)[0][0] for count in counts)
        return cls(groups, vocabulary, group_of, options, named)

    def state_dict(self) -> dict[str, Any]:
        """Returns tensors and plain values."""
        return {
            "groups": self.groups.state_dict(),
            "vocabulary": self.vocabulary.state_dict(),
            "known": self.group_of,
            "options": asdict(self.options),
            "categories": list(self.categories),
        }

    @classmethod
    def from_state(
        cls, state: dict[str, Any], encoder: TextEncoder, device: torch.device | str = "cpu"
    ) -> Language:
        """Rebuilds from :meth:`state_dict`; only the groups' memberships go to ``device``.

        A state without a vocabulary, of an earlier version, is calibrated anew; one without
        categories names the groups by their sentences.
        """
        groups = Groups.from_state(state["groups"], device)
        # Options that had other names then are read, too.
        options = from_mapping(Config, {"match": state["options"]}, "options").match
        texts: list[list[str]] = [[] for _ in range(groups.count)]
        for text, group in state["known"].items():
            texts[group].append(text)
        vocabulary = Vocabulary(texts, encoder, options.without, state.get("vocabulary"))
        categories = tuple(state.get("categories") or [None] * groups.count)
        if len(categories) != groups.count:
            raise ValueError(f"categories: expected {groups.count}, got {len(categories)}")
        return cls(groups, vocabulary, state["known"], options, categories)

    @functools.cached_property
    def names(self) -> list[str]:
        """Name of each group, which no other has: its category, if that is of one group.

        Otherwise it is a noun phrase of its sentences, of those with the most frequent head.
        """
        vocabulary, count = self.vocabulary, Counter(self.categories)
        names = [name if name and count[name] == 1 else "" for name in self.categories]
        for group, category in enumerate(names):
            nouns = [
                item.noun
                for item, owner in zip(vocabulary.descriptions, vocabulary.owners, strict=True)
                if owner == group and item.noun and item.noun not in names
            ]
            heads = Counter(noun.split(" of ")[0].rpartition(" ")[2] for noun in nouns)
            best = next(iter(heads.most_common(1)), ("", 0))[0]
            common = (noun for noun in nouns if best in noun)
            names[group] = category or min(common, key=len, default=f"group {group}")
        return names

    @functools.cached_property
    def colors(self) -> Tensor:  # [G, 11]
        """Degree to which each group has each of ``COLORS``, by its sentences and as it looks."""
        named = torch.zeros(self.groups.count, len(COLORS))
        vocabulary, order = self.vocabulary, list(COLORS)
        for item, owner in zip(vocabulary.descriptions, vocabulary.owners, strict=True):
            named[owner, [order.index(color) for color in item.colors]] = 1
        share = self.groups.attributes.colors
        # Sentences that name other colours leave less room for one that only shows.
        weight = 1 - 0.5 * named.amax(dim=1, keepdim=True)
        unnamed = weight * share / (share + VISIBLE_COLOR)
        return torch.where(
            named > 0, NAMED_COLOR + (1 - NAMED_COLOR) * (2 * share).clamp(max=1), unnamed
        )

    def find(self, sentence: str, places: Places, camera: Camera | None = None) -> Result:
        """Returns the groups that a sentence means, as seen from a camera.

        Args:
            sentence: A training sentence means its group; a new one is parsed and executed.
            places: Places of the groups.
            camera: Viewpoint of left, right, front and behind; None leaves them out.
        """
        if (group := self.group_of.get(sentence)) is not None:
            probabilities = torch.zeros(self.groups.count)
            probabilities[group] = 1
            return Result((group,), probabilities, (f"training sentence → {self.names[group]}",))
        results = []
        for is_near in (False, True):
            item = self.vocabulary.parse(sentence, is_near)
            executor = Executor(
                *(self.vocabulary, places, self.names, self.colors, camera),
                without=self.options.without,
                reject=self.options.reject,
            )
            results.append(executor.run(item))
            if executor.is_complete or not PRONOUN.search(sentence):
                return results[-1]
        return results[0]


@dataclass(frozen=True)
class Answerer:
    """A trained field, and the groups of its scene."""

    field: ReferringField
    features: Tensor
    """[N, C] the Gaussians' referring features."""
    positions: Tensor
    """[N, 3] their means."""
    encoder: TextEncoder
    language: Language | None = None
    """None where the field alone answers, as in the published setting."""

    @classmethod
    def from_state(
        cls, learned: dict[str, Any], positions: Tensor, encoder: TextEncoder
    ) -> Answerer:
        """Rebuilds from the result of the referring stage."""
        field = ReferringField(learned["text_dim"], learned["features"].shape[1])
        field.load_state_dict(learned["field"])
        state = learned.get("language")
        language = Language.from_state(state, encoder, positions.device) if state else None
        features = learned["features"].to(positions.device)
        return cls(field.to(positions.device).eval(), features, positions, encoder, language)

    @functools.cached_property
    def places(self) -> Places:
        """Places of the groups."""
        if self.language is None:
            raise ValueError("language: expected groups of Gaussians, got None")
        return Places.of(self.language.groups, self.positions)

    def respond(self, sentences: Sequence[str], camera: Camera | None = None) -> GroupResponses:
        """Returns each Gaussian's response to each sentence.

        A sentence gets the union of the groups that it means, and no Gaussian where it means none.
        Without groups the field responds.

        Raises:
            InputError: A sentence is blank.
        """
        if not all(sentence.strip() for sentence in sentences):
            raise InputError("sentence: expected words, got nothing; say what to find")
        language = self.language
        if language is None:
            return GroupResponses(self.field_responses(sentences), [None] * len(sentences))
        results = [language.find(sentence, self.places, camera) for sentence in sentences]
        logits = self.positions.new_full((len(sentences), len(self.positions)), -SURE)
        for row, result in zip(logits, results, strict=True):
            if result.groups:
                torch.amax(language.groups.logits[:, list(result.groups)], dim=1, out=row)
        return GroupResponses(logits, list(results))

    def field_responses(self, sentences: Sequence[str]) -> Tensor:  # [B, N]
        """Returns the responses of the field itself."""
        text = self.encoder(sentences).to(self.positions.device)
        return self.field.respond(self.features, self.positions, text)
