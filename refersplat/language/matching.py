"""Which group of Gaussians a new sentence means.

The field fits its training sentences, but knows few words. A pretrained encoder knows what means
the same, but not what is in the scene. So several ingredients score each group, and their weights
are those under which training sentences find their group when they themselves are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from refer3d.text_encoder import TextEncoder
from refersplat.config import MatchConfig
from refersplat.language.attributes import GroupAttributes
from refersplat.language.phrases import Phrases, take_apart

PRIOR = {
    "nearest": 12.0,
    "ridge": 12.0,
    "relation": 0.8,
    "color": 0.8,
    "size": 0.5,
    "field": 0.5,
}
"""What an ingredient's score is multiplied by before anything is known of the scene."""
NEAREST_SHARPNESS = 5.0
"""How much the nearest of a group's sentences counts more than the others, per unit of cosine."""
RIDGE = 0.5
"""Regularisation of the linear classifier; the embeddings have length one."""
ANCHOR_KNOWN, ANCHOR_WIDTH = 0.42, 0.04
"""Cosine at which an anchor is as probably a group as none, and how wide the transition is."""
ANCHOR_BEST = 4
"""How many of a group's phrases must be similar to an anchor's words."""
USUAL = (0.55, 0.12)
"""Mean and deviation of how similar a sentence is to the nearest group, before any is known."""
STEADINESS = 0.05
"""What it costs to multiply an ingredient's prior weight by e."""


class Match(NamedTuple):
    """What sentences mean."""

    logits: Tensor
    """[B, G] unnormalised log probability of each group."""
    surprise: Tensor
    """[B] by how many standard deviations a sentence is less similar to every group than training
    sentences are that are left out: large when it speaks of something else."""


@dataclass(frozen=True)
class Said:
    """Sentences, taken apart and encoded."""

    phrases: tuple[Phrases, ...]
    own: Tensor
    """[B, T] embeddings of what they say of the object itself."""
    head: Tensor
    """[B, T] embeddings of their heads."""
    anchors: tuple[tuple[Tensor, ...], ...]
    """For each sentence and relation, [anchors, T] embeddings of what it mentions."""

    @classmethod
    def encode(cls, sentences: Sequence[str], encoder: TextEncoder, apart: bool = True) -> Said:
        """Takes sentences apart, or leaves them whole, and encodes the parts."""
        phrases = tuple(
            take_apart(sentence) if apart else Phrases(sentence, sentence, (), (), ())
            for sentence in sentences
        )
        anchors = [
            words for item in phrases for relation in item.relations for words in relation.anchors
        ]
        texts = [item.own for item in phrases] + [item.head for item in phrases] + anchors
        distinct = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        embedded = encoder(list(distinct)).embeddings[[distinct[text] for text in texts]]
        count, rest = len(phrases), iter(embedded[2 * len(phrases) :])
        return cls(
            phrases=phrases,
            own=embedded[:count],
            head=embedded[count : 2 * count],
            anchors=tuple(
                tuple(
                    torch.stack([next(rest) for _ in relation.anchors])
                    if relation.anchors
                    else embedded[:0]
                    for relation in item.relations
                )
                for item in phrases
            ),
        )


class Matcher:
    """Scores groups for a sentence by what was said of them and by what the scene shows."""

    def __init__(
        self,
        own: Tensor,  # [S, T]
        head: Tensor,  # [S, T]
        owners: Tensor,  # [S] int64
        attributes: GroupAttributes,
        options: MatchConfig,
    ) -> None:
        """Starts from the prior weights; :meth:`fit` finds those of the scene.

        Args:
            own: Embeddings of what each training sentence says of its object.
            head: Embeddings of the training sentences' heads.
            owners: The group that each training sentence means.
            attributes: What the scene shows of the groups.
            options: Which ingredients count.
        """
        self.own, self.head, self.owners = own, head, owners
        self.attributes, self.options = attributes, options
        self.names = [name for name in PRIOR if name not in options.without]
        self.weights = torch.tensor([PRIOR[name] for name in self.names])
        self.usual = torch.tensor(USUAL)
        """How similar a sentence of a known object is to its nearest group: mean and deviation."""

    @classmethod
    def fit(
        cls,
        sentences: Sequence[Sequence[str]],
        attributes: GroupAttributes,
        encoder: TextEncoder,
        options: MatchConfig,
        held_out: dict[str, Tensor] | None = None,
    ) -> Matcher:
        """Learns from each group's training sentences.

        Args:
            sentences: Those of each group.
            attributes: What the scene shows of the groups.
            encoder: The frozen language model.
            options: Which ingredients count.
            held_out: [G] responses of the field, averaged over each group, to training sentences
                that it had not been taught by then.
        """
        flat = [(text, group) for group, texts in enumerate(sentences) for text in texts]
        said = Said.encode(
            [text for text, _ in flat], encoder, "decomposition" not in options.without
        )
        owners = torch.tensor([group for _, group in flat])
        matcher = cls(said.own, said.head, owners, attributes, options)
        field = None
        if "field" in matcher.names:
            field = torch.full((len(flat), len(sentences)), torch.nan)
            for row, (text, _) in enumerate(flat):
                if held_out and text in held_out:
                    field[row] = held_out[text]
        scores = matcher._ingredients(said, field, leave_out=torch.arange(len(flat)))
        alone = torch.bincount(owners, minlength=len(sentences))[owners] == 1
        if not alone.all() and len(sentences) > 1:
            if "fitted_weights" not in options.without:
                matcher._weigh(scores[~alone], owners[~alone])
            similar = matcher._nearest(said.own, torch.arange(len(flat)))[~alone].amax(dim=1)
            matcher.usual = usual_similarity(similar)
        return matcher

    def __call__(
        self,
        sentences: Sequence[str],
        encoder: TextEncoder,
        field: Tensor | None = None,  # [B, G]
    ) -> Match:
        """Scores each group for each sentence.

        Args:
            sentences: New ones, or training sentences.
            encoder: The language model that the matcher was fitted with.
            field: The field's response to the sentences, averaged over each group.
        """
        said = Said.encode(sentences, encoder, "decomposition" not in self.options.without)
        if field is None:
            field = torch.full((len(sentences), self.count), torch.nan)
        scores = self._ingredients(said, field)
        similarity = self._nearest(said.own, None).amax(dim=1)
        return Match(scores @ self.weights, (self.usual[0] - similarity) / self.usual[1])

    @property
    def count(self) -> int:
        """G, the number of groups."""
        return len(self.attributes.low)

    def _ingredients(
        self, said: Said, field: Tensor | None, leave_out: Tensor | None = None
    ) -> Tensor:  # [B, G, ingredients]
        """Every ingredient's score; ``leave_out`` names a training sentence not to be used."""
        makers = {
            "nearest": lambda: self._nearest(said.own, leave_out),
            "ridge": lambda: self._ridge(said.own, leave_out),
            "relation": lambda: self._relations(said),
            "color": lambda: self.attributes.color_scores(said.phrases),
            "size": lambda: self.attributes.size_scores(said.phrases),
            "field": lambda: _standing(field),
        }
        return torch.stack([makers[name]() for name in self.names], dim=-1)

    def _nearest(self, own: Tensor, leave_out: Tensor | None) -> Tensor:  # [B, G]
        """Similarity to each group's sentences, those nearest counting most."""
        similar = own @ self.own.T  # [B, S]
        member = F.one_hot(self.owners, self.count).bool()  # [S, G]
        usable = torch.ones_like(similar, dtype=torch.bool)
        if leave_out is not None:
            usable[torch.arange(len(own)), leave_out] = False
        logits = torch.where(
            usable[:, :, None] & member, NEAREST_SHARPNESS * similar[:, :, None], -torch.inf
        )
        weights = logits.softmax(dim=1).nan_to_num(nan=0.0)
        return (weights * similar[:, :, None]).sum(dim=1)

    def _ridge(self, own: Tensor, leave_out: Tensor | None) -> Tensor:  # [B, G]
        """Ridge regression of the group on the embedding, less what all sentences share."""
        mean = self.own.mean(dim=0)
        known = self.own - mean
        targets = F.one_hot(self.owners, self.count).float() - 1 / self.count
        gram = known @ known.T
        inverse = torch.linalg.inv(gram + RIDGE * torch.eye(len(gram)))
        if leave_out is None:
            return (own - mean) @ known.T @ inverse @ targets
        # The prediction without a sentence follows from the one with it in closed form.
        hat = gram @ inverse
        influence = hat.diagonal()[:, None]
        return (((hat @ targets) - influence * targets) / (1 - influence))[leave_out]

    def _relations(self, said: Said) -> Tensor:  # [B, G]
        """Whether a group stands where the sentence says, as seen from what it mentions."""
        scores = self.own.new_zeros(len(said.phrases), self.count)
        for row, phrases, anchors in zip(scores, said.phrases, said.anchors, strict=True):
            for relation, embedded in zip(phrases.relations, anchors, strict=True):
                row += self.attributes.relation_score(relation, [self._anchor(e) for e in embedded])
        return scores

    def _anchor(self, embedded: Tensor) -> Tensor:  # [T] -> [G]
        """How probably words mean each group; they may mean none, such as the table."""
        similar = torch.cat([self.own, self.head]) @ embedded
        owners = self.owners.repeat(2)
        best = [similar[owners == group] for group in range(self.count)]
        best = torch.stack([x.topk(min(ANCHOR_BEST, len(x))).values.mean() for x in best])
        logits = torch.cat([best, best.new_tensor([ANCHOR_KNOWN])]) / ANCHOR_WIDTH
        return logits.softmax(dim=0)[:-1]

    def _weigh(self, scores: Tensor, owners: Tensor) -> None:
        """Finds the weights under which sentences that were left out find their group."""
        prior = self.weights
        change = torch.zeros_like(prior, requires_grad=True)
        optimizer = torch.optim.LBFGS([change], max_iter=100, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            wrong = F.cross_entropy(scores @ (prior * change.exp()), owners)
            total = wrong + STEADINESS * change.square().sum()
            total.backward()
            return total

        optimizer.step(loss)
        self.weights = (prior * change.exp()).detach()

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {
            "own": self.own,
            "head": self.head,
            "owners": self.owners,
            "weights": dict(zip(self.names, self.weights.tolist(), strict=True)),
            "usual": self.usual,
        }

    @classmethod
    def from_state(
        cls, state: dict[str, Any], attributes: GroupAttributes, options: MatchConfig
    ) -> Matcher:
        """What :meth:`state_dict` described."""
        matcher = cls(state["own"], state["head"], state["owners"], attributes, options)
        matcher.weights = torch.tensor([state["weights"][name] for name in matcher.names])
        matcher.usual = state["usual"]
        return matcher


def usual_similarity(similar: Tensor) -> Tensor:  # [S] -> [2]
    """Mean and deviation, as if one more sentence had departed as far as is usual: few sentences
    may be alike by chance.
    """
    mean = similar.mean()
    squares = (similar - mean).square().sum() + USUAL[1] ** 2
    return torch.stack([mean, (squares / len(similar)).sqrt()])


def _standing(responses: Tensor) -> Tensor:  # [B, G]
    """Responses above their mean, in standard deviations; zeros where there are none.

    Logits grow as long as the field is trained, so their size tells nothing.
    """
    centred = responses - responses.mean(dim=1, keepdim=True)
    spread = centred.square().mean(dim=1, keepdim=True).sqrt().clamp(min=1e-6)
    return (centred / spread).nan_to_num(nan=0.0)
