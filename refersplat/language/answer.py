"""What the Gaussians answer to a sentence: those of the group that it means, or the field's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from refer3d.text_encoder import TextEncoder
from refersplat.config import MatchConfig
from refersplat.field.network import ReferringField
from refersplat.language.groups import Groups
from refersplat.language.matching import Match, Matcher

NO_GROUP = -1


class Answer(NamedTuple):
    """What the Gaussians answer to B sentences."""

    logits: Tensor
    """[B, N], to be blended before the sigmoid."""
    groups: Tensor
    """[B] int64, the group that answers; ``NO_GROUP`` where the field does."""


@dataclass(frozen=True)
class Language:
    """What new sentences are matched with: groups of Gaussians, and the sentences of each."""

    groups: Groups
    matcher: Matcher
    known: dict[str, int]
    """The group of each training sentence."""

    @classmethod
    def learn(
        cls,
        groups: Groups,
        sentences: Sequence[str],
        encoder: TextEncoder,
        options: MatchConfig,
        held_out: dict[str, Tensor] | None = None,
    ) -> Language:
        """Fits the matching to the training sentences; see :meth:`Matcher.fit`."""
        texts = [[sentences[row] for row in rows] for rows in groups.sentences]
        matcher = Matcher.fit(texts, groups.attributes, encoder, options, held_out)
        return cls(groups, matcher, {text: i for i, rows in enumerate(texts) for text in rows})

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {
            "groups": self.groups.state_dict(),
            "matcher": self.matcher.state_dict(),
            "known": self.known,
            "options": asdict(self.matcher.options),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any], device: torch.device | str = "cpu") -> Language:
        """What :meth:`state_dict` described; the groups' memberships on ``device``."""
        groups = Groups.from_state(state["groups"], device)
        options = MatchConfig(**state["options"])
        return cls(
            groups, Matcher.from_state(state["matcher"], groups.attributes, options), state["known"]
        )


@dataclass(frozen=True)
class Answerer:
    """A trained field, and what is known beside it of the language of the scene."""

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
        """What the referring stage wrote."""
        field = ReferringField(learned["text_dim"], learned["features"].shape[1])
        field.load_state_dict(learned["field"])
        state = learned.get("language")
        language = Language.from_state(state, positions.device) if state else None
        features = learned["features"].to(positions.device)
        return cls(field.to(positions.device).eval(), features, positions, encoder, language)

    def respond(self, sentences: Sequence[str]) -> Answer:
        """What each Gaussian answers to each sentence.

        A training sentence is answered by its group, a new one by the group that matches best. A
        sentence that is like nothing said before is not forced into a group.
        """
        language = self.language
        if language is None:
            return Answer(self.ask(sentences), torch.full((len(sentences),), NO_GROUP))
        chosen = torch.tensor([language.known.get(text, NO_GROUP) for text in sentences])
        fresh = (chosen == NO_GROUP).nonzero()[:, 0].tolist()
        logits = self.positions.new_empty(len(sentences), len(self.positions))
        if fresh:
            asked = [sentences[row] for row in fresh]
            logits[fresh] = self.ask(asked)
            chosen[fresh] = self.choose(self.match(asked, logits[fresh]))
        rows = chosen != NO_GROUP
        logits[rows] = language.groups.logits.T[chosen[rows]]
        return Answer(logits, chosen)

    def ask(self, sentences: Sequence[str]) -> Tensor:  # [B, N]
        """The field's own responses."""
        text = self.encoder(sentences).to(self.positions.device)
        return self.field.respond(self.features, self.positions, text)

    def match(self, sentences: Sequence[str], responses: Tensor) -> Match:
        """How well each group matches, given the field's responses [B, N]."""
        language = self.language
        return language.matcher(sentences, self.encoder, language.groups.mean(responses).cpu())

    def choose(self, match: Match) -> Tensor:  # [B] int64
        """The group that matches best, or none."""
        is_strange = match.surprise > self.language.matcher.options.reject
        return match.logits.argmax(dim=1).masked_fill(is_strange, NO_GROUP)
