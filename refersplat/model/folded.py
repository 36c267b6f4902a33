"""The referring field's interaction without a tensor of N × D.

The last layers of both Gaussian branches are linear, and so is nearly everything that reads their
outputs: it is folded into the few words instead, and the Gaussians stay in their 64-d hidden form.
What is not linear, the length of a position and the variance in the LayerNorm, is a quadratic form
in the hidden values. The Gaussians pass in chunks that fit the cache.

Everything is laid out as [channels, Gaussians], so that loops run along the Gaussians.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from .referring import Mlp, ReferringField

CHUNK = 4096
"""Gaussians in a chunk: the tensors of a few sentences then fit the second-level cache."""


class Chunk(NamedTuple):
    """Gaussians in hidden form; E is a hidden layer's width."""

    feature: Tensor
    """[E, n] hidden values of the feature branch, g = A feature + a."""
    square: Tensor
    """[n] variance of g over its channels, times D."""
    place: Tensor
    """[E, n] hidden values of the position branch over the length of its output."""
    closeness: Tensor
    """[n] one over that length: p = B place + b closeness."""


class Interaction:
    """Gaussians and a few sentences that have met; see ``ReferringField.forward``."""

    responses: Tensor
    """[B, N] logits, or [B, K] where ``visible`` chooses K of the N Gaussians."""

    def __init__(
        self,
        field: ReferringField,
        features: Tensor,  # [N, C]
        positions: Tensor,  # [N, 3]
        words: Tensor,  # [B, L, D]
        mask: Tensor,  # [B, L]
        visible: Tensor | None = None,  # [K]
    ) -> None:
        """Lets them meet. Differentiable in the field's parameters, features and words."""
        self.field = field
        self.features = features
        self.positions = positions
        self.words = words
        self.mask = mask
        if visible is None:
            asked, others = encode(field, features, positions), []
        else:
            is_other = torch.ones(len(features), dtype=torch.bool, device=features.device)
            is_other[visible] = False
            others = is_other.nonzero()[:, 0]
            asked, others = (
                encode(field, features[rows], positions[rows]) if len(rows) else []
                for rows in (visible, others)
            )
        self.word_positions = locate(field, asked + others, words)
        reader = Reader(field, words, mask, self.word_positions)
        self.responses = torch.cat([reader.respond(chunk) for chunk in asked], dim=1)

    def mean(
        self,
        selected: Tensor,  # [B, K]
    ) -> Tensor:  # [B, D]
        """The mean of ``forward`` over the Gaussians selected for each sentence."""
        means = []
        for index, rows in enumerate(selected):
            (chunk,) = encode(self.field, self.features[rows], self.positions[rows], len(rows))
            words, mask = self.words[index, None], self.mask[index, None]
            reader = Reader(self.field, words, mask, self.word_positions[index, None])
            means.append(reader.mean(chunk))
        return torch.cat(means)


def encode(
    field: ReferringField,
    features: Tensor,  # [N, C]
    positions: Tensor,  # [N, 3]
    chunk_size: int = CHUNK,
) -> list[Chunk]:
    """Runs both branches up to their last layer."""
    weight, bias = field.mlp2.fc3.weight, field.mlp2.fc3.bias
    centred = torch.cat([weight, bias[:, None]], dim=1)
    variance = gram(centred - centred.mean(dim=0))  # [E + 1, E + 1]
    length = gram(torch.cat([field.mlp3.fc3.weight, field.mlp3.fc3.bias[:, None]], dim=1))
    chunks = []
    for some_features, some_positions in zip(
        features.split(chunk_size), positions.split(chunk_size), strict=True
    ):
        feature = hidden(field.mlp2, some_features)
        place = hidden(field.mlp3, some_positions)
        closeness = quadratic(length, place).clamp(min=1e-24).rsqrt()
        chunks.append(Chunk(feature, quadratic(variance, feature), place * closeness, closeness))
    return chunks


def hidden(
    mlp: Mlp,
    x: Tensor,  # [n, C]
) -> Tensor:  # [E, n]
    """``mlp.hidden`` with the channels first."""
    for layer in (mlp.fc1, mlp.fc2):
        x = F.relu(torch.addmm(layer.bias[:, None], layer.weight, x.T)).T
    return x.T


def gram(matrix: Tensor) -> Tensor:
    """[E, E] products of a [D, E] matrix's columns."""
    return matrix.T @ matrix


class Quadratic(torch.autograd.Function):
    """The quadratic form of each (x, 1). Its gradient in x needs no second product with the form,
    which autograd would compute.
    """

    @staticmethod
    def forward(
        ctx: Any,
        form: Tensor,  # [E + 1, E + 1], symmetric
        x: Tensor,  # [E, n]
    ) -> Tensor:  # [n]
        """Σ form[i, j] x[i] x[j], with a last x of 1."""
        half_slope = torch.addmm(form[:-1, -1:], form[:-1, :-1], x)
        ctx.save_for_backward(x, half_slope)
        return ((half_slope + form[:-1, -1:]) * x).sum(dim=0) + form[-1, -1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients in the form and in x."""
        x, half_slope = ctx.saved_tensors
        weighted = x * grad
        grad_form = torch.cat(
            [
                torch.cat([weighted @ x.T, weighted.sum(dim=1, keepdim=True)], dim=1),
                torch.cat([weighted.sum(dim=1), grad.sum()[None]])[None],
            ]
        )
        return grad_form, half_slope * (2 * grad)


quadratic = Quadratic.apply


def locate(
    field: ReferringField,
    chunks: list[Chunk],
    words: Tensor,  # [B, L, D]
) -> Tensor:  # [B, L, D]
    """Where each word's Gaussians are: the mean of their positions, weighted by the match.

    The softmax over all Gaussians is put together from sums over chunks. The bias of the features'
    last layer is the same for all of them and cancels.
    """
    weight, bias = field.mlp3.fc3.weight, field.mlp3.fc3.bias
    rows = words.flatten(0, 1)
    folded = rows @ field.mlp2.fc3.weight  # [BL, E]
    peaks, totals, places, closeness = [], [], [], []
    for chunk in chunks:
        logits = folded @ chunk.feature  # [BL, n]
        peak = logits.detach().amax(dim=1, keepdim=True)
        matches = (logits - peak).exp()
        peaks.append(peak)
        totals.append(matches.sum(dim=1, keepdim=True))
        places.append(matches @ chunk.place.T)
        closeness.append(matches @ chunk.closeness[:, None])
    scale = (torch.stack(peaks) - torch.stack(peaks).amax(dim=0)).exp()  # [chunks, BL, 1]
    total = (scale * torch.stack(totals)).sum(dim=0)
    place = (scale * torch.stack(places)).sum(dim=0) / total  # [BL, E]
    close = (scale * torch.stack(closeness)).sum(dim=0) / total  # [BL, 1]
    return (place @ weight.T + close * bias).view_as(words)


class Reader:
    """Words of B sentences, folded to meet Gaussians in hidden form."""

    def __init__(
        self,
        field: ReferringField,
        words: Tensor,  # [B, L, D]
        mask: Tensor,  # [B, L]
        word_positions: Tensor,  # [B, L, D]
    ) -> None:
        """Folds every linear layer into the words."""
        attention = field.cross_attention
        self.shape = words.shape
        self.norm = attention.norm
        self.weight, self.bias = field.mlp2.fc3.weight, field.mlp2.fc3.bias
        place_weight, place_bias = field.mlp3.fc3.weight, field.mlp3.fc3.bias
        width = words.shape[-1]

        keys = attention.keys(words, word_positions).flatten(0, 1) / width**0.5  # [BL, D]
        for_feature = keys @ attention.q_linear.weight
        for_place = keys @ attention.gp_linear.weight
        self.key_feature = for_feature @ self.weight  # [BL, E]
        self.key_place = for_place @ place_weight  # [BL, E]
        self.key_closeness = (for_place @ place_bias)[:, None]  # [BL, 1]
        constant = keys @ (attention.q_linear.bias + attention.gp_linear.bias)
        constant = constant + for_feature @ self.bias
        self.key_constant = constant.masked_fill(~mask.flatten(), -torch.inf)[:, None]  # [BL, 1]

        # LayerNorm subtracts the mean of the channels: here once from the weights instead.
        values = attention.v_linear(words)
        self.values = values - values.mean(dim=-1, keepdim=True)  # [B, L, D]
        self.centred_weight = self.weight - self.weight.mean(dim=0)
        self.centred_bias = self.bias - self.bias.mean()
        flat = self.values.flatten(0, 1)
        self.value_feature = 2 * flat @ self.centred_weight  # [BL, E]
        self.value_constant = 2 * (flat @ self.centred_bias)[:, None]  # [BL, 1]
        self.value_gram = self.values @ self.values.mT  # [B, L, L]

        total = words.sum(dim=1)  # [B, D]
        asked = total * self.norm.weight
        self.asked_feature = asked @ self.centred_weight  # [B, E]
        self.asked_constant = (asked @ self.centred_bias)[:, None]  # [B, 1]
        self.asked_value = (self.values @ asked[..., None])[..., 0]  # [B, L]
        self.offset = (total @ self.norm.bias)[:, None]  # [B, 1]

    def read(self, chunk: Chunk) -> tuple[Tensor, Tensor]:  # [B, L, n], [B, n]
        """Attention to the words, and one over the deviation that LayerNorm divides by."""
        batch, length, width = self.shape
        logits = torch.addmm(self.key_constant, self.key_feature, chunk.feature)
        logits = torch.addmm(logits, self.key_place, chunk.place)
        logits = logits + self.key_closeness * chunk.closeness
        attention = logits.view(batch, length, -1).softmax(dim=1)
        cross = torch.addmm(self.value_constant, self.value_feature, chunk.feature)
        cross = torch.baddbmm(cross.view_as(attention), self.value_gram, attention)
        square = chunk.square + (cross * attention).sum(dim=1)
        return attention, (square / width + self.norm.eps).rsqrt()

    def respond(self, chunk: Chunk) -> Tensor:  # [B, n]
        """The responses of a chunk's Gaussians."""
        attention, scale = self.read(chunk)
        gaussian = torch.addmm(self.asked_constant, self.asked_feature, chunk.feature)
        value = (self.asked_value[:, None] @ attention)[:, 0]
        return (gaussian + value) * scale + self.offset

    def mean(self, chunk: Chunk) -> Tensor:  # [B, D]
        """The mean of the Gaussians after reading, for each sentence."""
        attention, scale = self.read(chunk)
        scale = scale / scale.shape[-1]  # [B, n]
        feature = scale @ chunk.feature.T  # [B, E]
        value = (attention @ scale[..., None]).mT @ self.values  # [B, 1, D]
        constant = scale.sum(dim=1, keepdim=True) * self.centred_bias
        centred = feature @ self.centred_weight.T + constant + value[:, 0]
        return centred * self.norm.weight + self.norm.bias
