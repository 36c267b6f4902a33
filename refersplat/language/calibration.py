"""Logistic regressions from similarities to probabilities, fitted within a scene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
import torch.nn.functional as F
from torch import Tensor

FEATURES = ("nearest", "noun", "words", "kind", "ridge")
"""Similarity to the nearest sentences and to their nouns; of all words, on average, to the
group's words; whether the phrase's noun is, or includes, what the group is called; a linear
classifier of sentences, for clauses."""
PRIOR = {
    "name": (0.8, 0.8, 0.8, 0.8, 0.0),
    "clause": (1.2, 0.4, 0.6, 0.0, 1.0),
}
"""Weights of ``FEATURES``, per standard deviation, before anything is known of the scene."""
PRIOR_MIDDLE = 0.4
"""Similarity at which a phrase is as probable to name a group as not, from that of unrelated texts
(0) to that of equal ones (1), before anything is known of the scene."""
PRIOR_STRENGTH = 0.01
"""Cost of a squared departure from the prior weights."""


class Example(IntEnum):
    """Phrases of the calibration; even ones name their group."""

    OWN = 0
    """A sentence or a name of the group that was left out."""
    OTHER = 1
    """One of another group."""
    WIDER = 2
    """A noun that includes the group's: "instrument"."""
    BESIDE = 3
    """A noun beside the group's, of an absent thing: "violin"."""


SHARES = (1.0, 1.0, 0.5, 0.5)
"""Weights of each sort of example in its class."""


@dataclass(frozen=True)
class Regression:
    """A logistic regression on standardised features."""

    mean: Tensor
    deviation: Tensor
    weights: Tensor
    bias: Tensor

    @classmethod
    def prior(cls, weights: Sequence[float], noise: float) -> Regression:
        """Returns the regression for a scene without data to fit it to.

        Args:
            weights: Of ``FEATURES``.
            noise: Mean similarity of texts that have nothing in common.
        """
        middle = torch.full((len(weights),), noise + PRIOR_MIDDLE * (1 - noise))
        return cls(middle, (1 - middle) / 2, torch.tensor(weights), torch.zeros(()))

    @classmethod
    def fit(
        cls, inputs: Tensor, examples: Sequence[Example], weights: Tensor, used: Tensor
    ) -> Regression:
        """Fits to phrases that name a group and to others; both classes weigh the same.

        Args:
            inputs: [M, F] features of phrases, compared with a group each.
            examples: M sorts of these, some of them ``OWN`` or ``WIDER``, some neither.
            weights: [F] prior weights.
            used: [F] 1 for features that may get a weight, else 0.
        """
        sorts = torch.tensor(examples)
        labels = (sorts % 2 == 0).float()
        balance = (torch.tensor(SHARES) / sorts.bincount(minlength=len(SHARES)))[sorts]
        balance = (
            0.5
            * balance
            / torch.where(labels > 0, (balance * labels).sum(), (balance * (1 - labels)).sum())
        )
        mean = balance @ inputs
        deviation = (balance @ (inputs - mean).square()).sqrt().clamp(min=1e-3)
        scores = (inputs - mean) / deviation
        prior = torch.cat([weights, torch.zeros(1)])
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
