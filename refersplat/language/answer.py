"""Responses of the Gaussians to sentences: of the group that each means, or of the field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from refer3d.runs.config import from_mapping
from refer3d.text_encoder import TextEncoder
from refersplat.config import Config, MatchConfig
from refersplat.field.network import ReferringField
from refersplat.language.groups import Groups
from refersplat.language.matching import Matcher

NO_GROUP = -1


class Answer(NamedTuple):
    """Responses of the Gaussians to B sentences."""

    logits: Tensor
    """[B, N], to be blended before the sigmoid."""
    groups: Tensor
    """[B] int64, the group that responds; ``NO_GROUP`` where the field does."""


@dataclass(frozen=True)
class Language:
    """Groups of Gaussians and a matcher that finds the group of a new sentence."""

    groups: Groups
    matcher: Matcher
    group_of: dict[str, int]
    """The group of each training sentence."""

    @classmethod
    def fit(
        cls,
        groups: Groups,
        sentences: Sequence[str],
        encoder: TextEncoder,
        options: MatchConfig,
        held_out: dict[str, Tensor] | None = None,
    ) -> Language:
        """Fits the matcher to the training sentences; see :meth:`Matcher.fit`."""
        texts = [[sentences[row] for row in rows] for rows in groups.sentences]
        matcher = Matcher.fit(texts, groups.attributes, encoder, options, held_out)
        return cls(groups, matcher, {text: i for i, rows in enumerate(texts) for text in rows})

    def state_dict(self) -> dict[str, Any]:
        """Returns tensors and plain values."""
        return {
            "groups": self.groups.state_dict(),
            "matcher": self.matcher.state_dict(),
            "known": self.group_of,
            "options": asdict(self.matcher.options),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any], device: torch.device | str = "cpu") -> Language:
        """Rebuilds from :meth:`state_dict`; only the groups' memberships go to ``device``."""
        groups = Groups.from_state(state["groups"], device)
        options = from_mapping(Config, {"match": state["options"]}, "referring.pt").match
        matcher = Matcher.from_state(state["matcher"], groups.attributes, options)
        return cls(groups, matcher, state["known"])

    def choose(
        self,
        sentences: Sequence[str],
        encoder: TextEncoder,
        responses: Tensor,  # [B, N]
    ) -> Tensor:  # [B] int64
        """Returns the group that matches each sentence best, or ``NO_GROUP``.

        Args:
            sentences: B new sentences.
            encoder: The language model that the matcher was fitted with.
            responses: The field's responses to them.
        """
        match = self.matcher(sentences, encoder, self.groups.mean(responses).cpu())
        is_unrelated = match.surprise > self.matcher.options.reject
        return match.logits.argmax(dim=1).masked_fill(is_unrelated, NO_GROUP)


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
        language = Language.from_state(state, positions.device) if state else None
        features = learned["features"].to(positions.device)
        return cls(field.to(positions.device).eval(), features, positions, encoder, language)

    def respond(self, sentences: Sequence[str]) -> Answer:
        """Returns each Gaussian's response to each sentence.

        A training sentence gets its group, a new one the group that matches best. A sentence unlike
        all training sentences gets the field's responses.
        """
        language = self.language
        if language is None:
            return Answer(self.field_responses(sentences), torch.full((len(sentences),), NO_GROUP))
        chosen = torch.tensor([language.group_of.get(text, NO_GROUP) for text in sentences])
        logits = self.positions.new_empty(len(sentences), len(self.positions))
        new: list[int] = (chosen == NO_GROUP).nonzero()[:, 0].tolist()
        if new:
            queries = [sentences[row] for row in new]
            logits[new] = self.field_responses(queries)
            chosen[new] = language.choose(queries, self.encoder, logits[new])
        rows = chosen != NO_GROUP
        logits[rows] = language.groups.logits.T[chosen[rows]]
        return Answer(logits, chosen)

    def field_responses(self, sentences: Sequence[str]) -> Tensor:  # [B, N]
        """Returns the responses of the field itself."""
        text = self.encoder(sentences).to(self.positions.device)
        return self.field.respond(self.features, self.positions, text)
