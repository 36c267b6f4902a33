"""Losses of the referring stage: named and weighted, in one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from refer3d.runs.device import to_device
from refer3d.text_encoder import TextFeatures
from refersplat.config import TrainConfig
from refersplat.data.supervised import SupervisedView
from refersplat.field.folded import Interaction
from refersplat.field.network import ReferringField


@dataclass(frozen=True)
class Step:
    """Inputs of the losses: B targets of one view, each with one sentence."""

    index: int
    """Steps of the stage before this one."""
    options: TrainConfig
    view: SupervisedView
    targets: tuple[int, ...]
    """B indices into the view's targets."""
    text: TextFeatures
    """All training sentences, encoded."""
    field: ReferringField
    interaction: Interaction
    """The field's interaction with the B sentences; the K visible Gaussians respond."""
    visible: Tensor
    """[K] int64, rows of the Gaussians that the view shows."""
    logits: Tensor
    """[B, H, W] rendered responses."""
    masks: Tensor
    """[B, H, W] bool, the targets' masks."""


class Loss(NamedTuple):
    """A loss and its weight."""

    weight: Callable[[TrainConfig], float]
    """Weight in the sum; 0 skips the loss."""
    function: Callable[[Step], Tensor]
    """From a step to a scalar, differentiable in the field's parameters and the features."""


def weights_of(options: TrainConfig) -> dict[str, float]:
    """The weights of those losses of :data:`LOSSES` that have one, by name."""
    weights = {name: loss.weight(options) for name, loss in LOSSES.items()}
    return {name: weight for name, weight in weights.items() if weight}


def weighted_losses(step: Step) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes every loss of :data:`LOSSES` that has a weight.

    Returns:
        total: The weighted sum, a scalar.
        losses: Each loss by its name, without its weight.
    """
    weights = weights_of(step.options)
    losses = {name: LOSSES[name].function(step) for name in weights}
    total = sum((weights[name] * loss for name, loss in losses.items()), step.logits.new_zeros(()))
    return total, losses


def mask_loss(
    logits: Tensor,  # [B, H, W]
    masks: Tensor,  # [B, H, W] bool
) -> Tensor:  # []
    """Binary cross-entropy of rendered responses, over all pixels."""
    return F.binary_cross_entropy_with_logits(logits, masks.to(logits.dtype))


def contrastive_loss(
    means: Tensor,  # [B, D]
    sentences: Tensor,  # [M, D]
    positives: Tensor,  # [B, M] bool
    temperature: float = 0.1,
) -> Tensor:  # []
    """Contrasts the Gaussians that respond to a sentence with all sentences of the view.

    Every positive is compared with every negative: log(1 + Σ⁻ exp(s⁻) Σ⁺ exp(−s⁺)), where s is the
    cosine over the temperature. With one positive this is the usual cross-entropy.

    Args:
        means: Mean of the responding Gaussians, for each sentence of the step.
        sentences: Mean of the words, for each sentence of the view.
        positives: Whether a sentence of the step and one of the view name the same object.
        temperature: Smaller is sharper.
    """
    similarity = F.normalize(means, dim=1) @ F.normalize(sentences, dim=1).T / temperature
    # Finite, so that a row without negatives has no loss and a gradient of zero instead of NaN.
    never = torch.finfo(similarity.dtype).min / 4
    negative = similarity.masked_fill(positives, never).logsumexp(dim=1)
    positive = (-similarity).masked_fill(~positives, never).logsumexp(dim=1)
    return F.softplus(negative + positive).mean()


def selection_ratio(
    step: int, start: float = 0.1, factor: float = 0.6, every: int = 2_000, floor: float = 0.005
) -> float:
    """Share of the Gaussians that count as responding; it narrows as responses become sure."""
    return max(start * factor ** (step // every), floor)


def select_responding(
    responses: Tensor,  # [B, N]
    ratio: float,
) -> Tensor:  # [B, K]
    """Selects the Gaussians that respond most to each sentence."""
    count = max(1, int(ratio * responses.shape[1]))
    return responses.detach().topk(count, dim=1, sorted=False).indices


def sentence_means(
    field: ReferringField, text: TextFeatures, counts_padding: bool
) -> Tensor:  # [M, D]
    """Averages each sentence's embedded words.

    The published code counts a padded batch's padding too; there it averages the language model's
    features of padding, here zeros.
    """
    if counts_padding:
        return field.mlp1(text.words).mean(dim=1)
    words = field.embed_words(text)
    return words.sum(dim=1) / text.mask.sum(dim=1, keepdim=True)


def _contrast(step: Step) -> Tensor:
    view, is_published = step.view, step.options.setting == "published"
    rows = [row for target in view.targets for row in target.sentences]
    owners = [index for index, target in enumerate(view.targets) for _ in target.sentences]
    positives = torch.tensor(step.targets)[:, None] == torch.tensor(owners)
    if is_published:  # its selection sorts along an axis of length one: always the first Gaussian
        selected = step.visible.new_zeros(len(step.targets), 1)
    else:
        ratio = selection_ratio(step.index)
        selected = step.visible[select_responding(step.interaction.responses, ratio)]
    return contrastive_loss(
        step.interaction.mean(selected),
        sentence_means(step.field, step.text[rows], counts_padding=is_published),
        to_device(positives, step.masks.device),
    )


LOSSES: dict[str, Loss] = {
    "bce": Loss(lambda options: 1, lambda step: mask_loss(step.logits, step.masks)),
    "contrastive": Loss(lambda options: options.contrastive_weight, _contrast),
}
"""The losses of the referring stage, by the names under which they are logged. To add one, add a
function and a line here, and its weight to ``TrainConfig``."""
