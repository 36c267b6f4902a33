"""The referring field's interaction without a tensor of N × D.

The last layers of both Gaussian branches are linear, and so is nearly everything that reads their
outputs: it is folded into the few words instead, and the Gaussians stay in their 64-d hidden form.
What is not linear, the length of a position and the variance in the LayerNorm, is a quadratic form
in the hidden values. The Gaussians pass in chunks that fit the cache.

Everything is laid out as [channels, Gaussians], so that loops run along the Gaussians.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from refersplat.field.chunks import map_chunks

if TYPE_CHECKING:
    from refersplat.field.network import ReferringField

CHUNK = 4096
"""Gaussians in a chunk on a CPU, so that the tensors of a few sentences fit the L2 cache."""
GPU_CHUNK = 2**18
"""Gaussians in a chunk on a GPU, where launches cost more than small kernels take."""
NORM_EPS = torch.nn.LayerNorm(1).eps


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

    def split(self, batch: int) -> Chunk:
        """Splits the Gaussians evenly among B sentences: [B, E, n / B] and [B, 1, n / B]."""
        return Chunk(*(x.view(-1, batch, x.shape[-1] // batch).transpose(0, 1) for x in self))


class Interaction:
    """Interaction of Gaussians with a few sentences; see ``ReferringField.forward``."""

    responses: Tensor
    """[B, N] logits, or [B, K] where ``visible`` selects K of the N Gaussians."""

    def __init__(
        self,
        field: ReferringField,
        features: Tensor,  # [N, C]
        positions: Tensor,  # [N, 3]
        words: Tensor,  # [B, L, D]
        mask: Tensor,  # [B, L]
        visible: tuple[Tensor, Tensor] | None = None,  # [K], [N - K]
    ) -> None:
        """Computes the responses. Differentiable in the field's parameters, features and words."""
        self.field = field
        self.features = features
        self.positions = positions
        self.branches = Branches.of(field)
        responding, others = split(features, positions), []
        if visible is not None:
            responding, others = (
                split(*select_rows(rows, features, positions)) if len(rows) else []
                for rows in visible
            )
        chunks, word_positions = locate(field, self.branches, responding + others, words)
        self.reader = Reader.of(field, words, mask, word_positions)
        responses = map_chunks(respond, self.reader, chunks[: len(responding)])
        self.responses = torch.cat([response for (response,) in responses], dim=1)

    def mean(
        self,
        selected: Tensor,  # [B, K]
    ) -> Tensor:  # [B, D]
        """Averages ``forward`` over the Gaussians selected for each sentence."""
        chosen = select_rows(selected.flatten(), self.features, self.positions)
        chunk = encode(self.branches, *chosen)
        norm = self.field.cross_attention.norm
        return self.reader.mean(chunk.split(len(selected))) * norm.weight + norm.bias


class Branches(NamedTuple):
    """Weights of both branches up to their last layer, and quadratic forms of the last one."""

    feature_in: Tensor
    feature_in_bias: Tensor
    feature_out: Tensor
    feature_out_bias: Tensor
    place_in: Tensor
    place_in_bias: Tensor
    place_out: Tensor
    place_out_bias: Tensor
    variance: Tensor
    """[E + 1, E + 1] form whose value at (hidden feature, 1) is the variance of g, times D."""
    length: Tensor
    """[E + 1, E + 1] form whose value at (hidden position, 1) is the squared length of p."""

    @classmethod
    def of(cls, field: ReferringField) -> Branches:
        """Takes the branches of a field."""
        feature, place = field.mlp2, field.mlp3
        centred = torch.cat([feature.fc3.weight, feature.fc3.bias[:, None]], dim=1)
        last = torch.cat([place.fc3.weight, place.fc3.bias[:, None]], dim=1)
        return cls(
            *(feature.fc1.weight, feature.fc1.bias, feature.fc2.weight, feature.fc2.bias),
            *(place.fc1.weight, place.fc1.bias, place.fc2.weight, place.fc2.bias),
            variance=gram(centred - centred.mean(dim=0)),
            length=gram(last),
        )


def select_rows(rows: Tensor, *tensors: Tensor) -> list[Tensor]:
    """Selects rows of tensors, some perhaps several times.

    PyTorch adds up the gradients of ``tensor[rows]`` in no fixed order, those of this in one.
    """
    return [tensor.index_select(0, rows) for tensor in tensors]


def split(
    features: Tensor,  # [N, C]
    positions: Tensor,  # [N, 3]
) -> list[tuple[Tensor, Tensor]]:
    """Splits features and positions into chunks."""
    size = CHUNK if features.device.type == "cpu" else GPU_CHUNK
    return list(zip(features.split(size), positions.split(size), strict=True))


def encode(
    branches: Branches,
    features: Tensor,  # [n, C]
    positions: Tensor,  # [n, 3]
) -> Chunk:
    """Runs both branches up to their last layer."""
    feature = hidden(*branches[:4], features)
    place = hidden(*branches[4:8], positions)
    closeness = quadratic(branches.length, place).clamp(min=1e-24).rsqrt()
    return Chunk(feature, quadratic(branches.variance, feature), place * closeness, closeness)


def hidden(
    inner: Tensor,  # [F, C]
    inner_bias: Tensor,  # [F]
    outer: Tensor,  # [E, F]
    outer_bias: Tensor,  # [E]
    x: Tensor,  # [n, C]
) -> Tensor:  # [E, n]
    """Applies two layers with their ReLU, channels first."""
    x = F.relu(torch.addmm(inner_bias[:, None], inner, x.T))
    return F.relu(torch.addmm(outer_bias[:, None], outer, x))


def gram(matrix: Tensor) -> Tensor:
    """Returns the [E, E] products of a [D, E] matrix's columns."""
    return matrix.T @ matrix


class Quadratic(torch.autograd.Function):
    """Quadratic form of each (x, 1).

    Its gradient in x needs no second product with the form, which autograd would compute.
    """

    @staticmethod
    def forward(
        ctx: Any,
        form: Tensor,  # [E + 1, E + 1], symmetric
        x: Tensor,  # [E, n]
    ) -> Tensor:  # [n]
        """Returns Σ form[i, j] x[i] x[j], with a last x of 1."""
        half_slope = torch.addmm(form[:-1, -1:], form[:-1, :-1], x)
        ctx.save_for_backward(x, half_slope)
        return ((half_slope + form[:-1, -1:]) * x).sum(dim=0) + form[-1, -1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the gradients in the form and in x."""
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


def match(shared: Sequence[Tensor], chunk: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Encodes a chunk, and computes its part of each word's softmax over all Gaussians.

    Args:
        shared: The :class:`Branches`, and the words folded with the features' last layer [BL, E].
        chunk: Its features [n, C] and positions [n, 3].

    Returns:
        The :class:`Chunk`; the largest logit [BL, 1]; sums over the chunk, weighted by the match:
        of ones [BL, 1], of hidden places [BL, E], of closeness [BL, 1].
    """
    *branches, folded = shared
    encoded = encode(Branches(*branches), *chunk)
    logits = folded @ encoded.feature  # [BL, n]
    peak = logits.detach().amax(dim=1, keepdim=True)
    matches = (logits - peak).exp()
    close = matches @ encoded.closeness[:, None]
    return *encoded, peak, matches.sum(dim=1, keepdim=True), matches @ encoded.place.T, close


def locate(
    field: ReferringField,
    branches: Branches,
    chunks: Sequence[Sequence[Tensor]],
    words: Tensor,  # [B, L, D]
) -> tuple[list[Chunk], Tensor]:  # ..., [B, L, D]
    """Encodes all chunks, and averages the Gaussians' positions for each word by the match.

    The softmax over all Gaussians is put together from sums over chunks. The bias of the features'
    last layer is the same for all of them and cancels.
    """
    weight, bias = field.mlp3.fc3.weight, field.mlp3.fc3.bias
    folded = words.flatten(0, 1) @ field.mlp2.fc3.weight  # [BL, E]
    matched = map_chunks(match, (*branches, folded), chunks)
    size = len(Chunk._fields)
    peaks, totals, places, closeness = (
        torch.stack(part) for part in zip(*(sums[size:] for sums in matched), strict=True)
    )
    peaks = peaks.detach()
    scale = (peaks - peaks.amax(dim=0)).exp()  # [chunks, BL, 1]
    total = (scale * totals).sum(dim=0)
    place = (scale * places).sum(dim=0) / total  # [BL, E]
    close = (scale * closeness).sum(dim=0) / total  # [BL, 1]
    word_positions = (place @ weight.T + close * bias).view_as(words)
    return [Chunk(*encoded[:size]) for encoded in matched], word_positions


class Reader(NamedTuple):
    """Words of B sentences, with every linear layer folded into them."""

    key_feature: Tensor  # [BL, E]
    key_place: Tensor  # [BL, E]
    key_closeness: Tensor  # [BL, 1]
    key_constant: Tensor  # [BL, 1]
    values: Tensor
    """[B, L, D] without their mean over the channels, which LayerNorm subtracts."""
    value_feature: Tensor  # [BL, E]
    value_constant: Tensor  # [BL, 1]
    value_gram: Tensor  # [B, L, L]
    query_feature: Tensor  # [B, E]
    query_constant: Tensor  # [B, 1]
    query_value: Tensor  # [B, L]
    query_offset: Tensor  # [B, 1]
    centred_weight: Tensor
    """[D, E] the features' last layer without its mean over the channels."""
    centred_bias: Tensor  # [D]

    @classmethod
    def of(
        cls,
        field: ReferringField,
        words: Tensor,  # [B, L, D]
        mask: Tensor,  # [B, L]
        word_positions: Tensor,  # [B, L, D]
    ) -> Reader:
        """Folds the last layers of the field into the words."""
        attention = field.cross_attention
        weight, bias = field.mlp2.fc3.weight, field.mlp2.fc3.bias
        keys = attention.keys(words, word_positions).flatten(0, 1) / words.shape[-1] ** 0.5
        for_feature = keys @ attention.q_linear.weight  # [BL, D]
        for_place = keys @ attention.gp_linear.weight
        constant = keys @ (attention.q_linear.bias + attention.gp_linear.bias) + for_feature @ bias
        values = attention.v_linear(words)
        values = values - values.mean(dim=-1, keepdim=True)
        centred_weight, centred_bias = weight - weight.mean(dim=0), bias - bias.mean()
        flat = values.flatten(0, 1)
        total = words.sum(dim=1)  # [B, D]
        query = total * attention.norm.weight
        return cls(
            key_feature=for_feature @ weight,
            key_place=for_place @ field.mlp3.fc3.weight,
            key_closeness=(for_place @ field.mlp3.fc3.bias)[:, None],
            key_constant=constant.masked_fill(~mask.flatten(), -torch.inf)[:, None],
            values=values,
            value_feature=2 * flat @ centred_weight,
            value_constant=2 * (flat @ centred_bias)[:, None],
            value_gram=values @ values.mT,
            query_feature=query @ centred_weight,
            query_constant=(query @ centred_bias)[:, None],
            query_value=(values @ query[..., None])[..., 0],
            query_offset=(total @ attention.norm.bias)[:, None],
            centred_weight=centred_weight,
            centred_bias=centred_bias,
        )

    def read(self, chunk: Chunk) -> tuple[Tensor, Tensor]:  # [B, L, n], [B, n]
        """Computes the attention to the words, and one over the deviation of the LayerNorm.

        Each sentence reads all Gaussians of the chunk, or its own where the chunk is split.
        """
        batch, length, width = self.values.shape
        is_split = chunk.feature.dim() == 3

        def project(constant: Tensor, matrix: Tensor, x: Tensor) -> Tensor:
            if not is_split:
                return torch.addmm(constant, matrix, x)
            return torch.baddbmm(
                constant.view(batch, length, -1), matrix.view(batch, length, -1), x
            )

        logits = project(self.key_constant, self.key_feature, chunk.feature)
        logits = project(logits, self.key_place, chunk.place)
        closeness = self.key_closeness.view(batch, length, 1) if is_split else self.key_closeness
        logits = logits + closeness * chunk.closeness
        attention = logits.view(batch, length, -1).softmax(dim=1)
        cross = project(self.value_constant, self.value_feature, chunk.feature)
        cross = torch.baddbmm(cross.view_as(attention), self.value_gram, attention)
        square = chunk.square.view(-1, attention.shape[-1]) + (cross * attention).sum(dim=1)
        return attention, (square / width + NORM_EPS).rsqrt()

    def mean(self, chunk: Chunk) -> Tensor:  # [B, D]
        """Averages each sentence's own Gaussians after the norm, before its weight and bias."""
        attention, scale = self.read(chunk)
        scale = scale[..., None] / scale.shape[-1]  # [B, n, 1]
        feature = (chunk.feature @ scale)[..., 0]  # [B, E]
        value = (attention @ scale).mT @ self.values  # [B, 1, D]
        constant = scale.sum(dim=1) * self.centred_bias
        return feature @ self.centred_weight.T + constant + value[:, 0]


def respond(shared: Sequence[Tensor], chunk: Sequence[Tensor]) -> tuple[Tensor]:  # [B, n]
    """Computes the responses of a :class:`Chunk`'s Gaussians to a :class:`Reader`'s sentences."""
    reader, chunk = Reader(*shared), Chunk(*chunk)
    attention, scale = reader.read(chunk)
    gaussian = torch.addmm(reader.query_constant, reader.query_feature, chunk.feature)
    value = (reader.query_value[:, None] @ attention)[:, 0]
    return ((gaussian + value) * scale + reader.query_offset,)
