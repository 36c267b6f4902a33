"""The decoder: words attend to superpoints; parameters have the published names."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detailbase.model.relations import Relations


class DecoderOutput(NamedTuple):
    """Masks and scores of every word after each of R rounds; the last round counts.

    The first round stands before the first layer, the others behind one layer each.
    """

    masks: Tensor
    """[R, B, L, S], mask logits of the superpoints."""
    scores: Tensor
    """[R, B, L], the predicted IoU of each mask."""
    choices: Tensor | None = None
    """[R, B, L, 2], logits of a word's meaning none of the objects and several of them; None
    without choice."""


class Attention(nn.Module):
    """Multi-head attention of queries to keys that are their own values, residual and norm."""

    def __init__(self, width: int, heads: int, is_normed: bool = True) -> None:
        super().__init__()
        self.is_normed = is_normed
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm = nn.LayerNorm(width)

    def forward(
        self,
        queries: Tensor,  # [B, M, D]
        keys: Tensor,  # [B, S, D], or [1, S, D] for all
        mask: Tensor,  # [B, M, S] or [B, 1, S] bool
        bias: Tensor | None = None,  # [B, H, M, S]
    ) -> Tensor:  # [B, M, D]
        """Attends where the mask is on, adds the queries, and normalises, if it is to."""
        mask = mask[:, None]
        if bias is not None:
            mask = bias.masked_fill(~mask, -torch.inf)
        attn, width = self.attn, queries.shape[-1]
        weight, bias = attn.in_proj_weight, attn.in_proj_bias
        query = F.linear(queries, weight[:width], bias[:width])
        key, value = F.linear(keys, weight[width:], bias[width:]).chunk(2, dim=-1)
        query, key, value = (
            # Not every kernel of a GPU's attention takes tensors that repeat by strides of 0.
            x.expand(len(queries), -1, -1).contiguous().unflatten(-1, (attn.num_heads, -1))
            for x in (query, key, value)
        )
        query, key, value = (x.transpose(1, 2) for x in (query, key, value))
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        queries = queries + attn.out_proj(attended.transpose(1, 2).flatten(2))
        return self.norm(queries) if self.is_normed else queries


class FeedForward(nn.Module):
    """Two linear layers on each word alone."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            *(nn.Linear(width, hidden), nn.GELU(), nn.Identity(), nn.Linear(hidden, width))
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, words: Tensor) -> Tensor:  # [B, L, D]
        return self.norm(words + self.net(words))


class Decoder(nn.Module):
    """Decodes a mask for every word: each layer attends to the superpoints of the word's last mask,
    then to the words of its sentence.

    In the published network the norm behind the cross-attention has a weight but no effect.
    """

    calibration: Tensor
    """[2], factor and summand of the log-odds of scores; only with choice."""

    def __init__(
        self,
        text_dim: int,
        channels: int,
        width: int,
        heads: int,
        hidden: int,
        layers: int,
        cross_attn_norm: bool = False,
        choice: bool = False,
        relations: bool = False,
    ) -> None:
        """Makes the layers.

        Args:
            text_dim: T, the width of word features.
            channels: C, the width of superpoint features.
            width: D, the width of queries.
            heads: Heads of each attention.
            hidden: Width inside the feed-forward blocks.
            layers: Number of layers, R - 1.
            cross_attn_norm: Whether the norm behind the cross-attention is applied.
            choice: Whether to predict if a word means none or several of the objects.
            relations: Whether the relations of objects bias the cross-attention and the masks.
        """
        super().__init__()
        self.input_proj = nn.Sequential(nn.Linear(channels, width), nn.LayerNorm(width), nn.ReLU())
        self.lang_proj = nn.Linear(text_dim, width)
        self.cross_attn_layers = nn.ModuleList(
            Attention(width, heads, cross_attn_norm) for _ in range(layers)
        )
        self.self_attn_layers = nn.ModuleList(Attention(width, heads) for _ in range(layers))
        self.ffn_layers = nn.ModuleList(FeedForward(width, hidden) for _ in range(layers))
        self.out_norm = nn.LayerNorm(width)
        self.out_score = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
        self.x_mask = nn.Sequential(nn.Linear(channels, width), nn.ReLU(), nn.Linear(width, width))
        self.out_choice = nn.Linear(width, 2) if choice else None
        if choice:
            self.register_buffer("calibration", torch.tensor([1.0, 0.0]))
        self.relations = (
            nn.ModuleList(Relations(width, heads + 1) for _ in range(layers)) if relations else None
        )

    def forward(
        self,
        superpoints: Tensor,  # [S, C]
        words: Tensor,  # [B, L, T]
        mask: Tensor,  # [B, L] bool
        objects: Tensor | None = None,  # [S, 13]
    ) -> DecoderOutput:
        """Predicts masks for the sentences about one scene.

        Args:
            superpoints: Features of the scene's superpoints.
            words: Features of the sentences' words, special tokens among them.
            mask: True at words, False at padding.
            objects: Descriptors of the object around each superpoint, for the relations.
        """
        queries = self.lang_proj(words)
        keys = self.input_proj(superpoints)[None]
        mask_features = self.x_mask(superpoints)
        rounds = [self._predict(queries, mask_features)]
        layers = zip(self.cross_attn_layers, self.self_attn_layers, self.ffn_layers, strict=True)
        for index, (cross, alone, feed) in enumerate(layers):
            last, bias, preference = rounds[-1][0], None, None
            if self.relations is not None and objects is not None:
                biases = self.relations[index](queries, mask, last, objects)
                bias, preference = biases[:, 1:], biases[:, 0]
            queries = cross(queries, keys, _attention_mask(last), bias)
            queries = feed(alone(queries, queries, mask[:, None]))
            rounds.append(self._predict(queries, mask_features, preference))
        masks, scores, choices = zip(*rounds, strict=True)
        return DecoderOutput(
            torch.stack(masks),
            torch.stack(scores),
            None if self.out_choice is None else torch.stack(choices),
        )

    def _predict(
        self,
        queries: Tensor,  # [B, L, D]
        mask_features: Tensor,  # [S, D]
        preference: Tensor | None = None,  # [B, L, S]
    ) -> tuple[Tensor, Tensor, Tensor | None]:  # [B, L, S], [B, L], [B, L, 2]
        queries = self.out_norm(queries)
        masks = queries @ mask_features.T
        masks = masks if preference is None else masks + preference
        choices = None if self.out_choice is None else self.out_choice(queries)
        return masks, self.out_score(queries)[..., 0], choices


def _attention_mask(logits: Tensor) -> Tensor:  # [B, L, S] -> [B, L, S] bool
    """Masks the attention to where the last mask is on; everywhere if it is empty."""
    is_on = logits.detach() >= 0
    return is_on | ~is_on.any(dim=-1, keepdim=True)
