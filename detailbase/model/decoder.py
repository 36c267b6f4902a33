"""Words that look for their superpoints, under the published parameter names."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Answer(NamedTuple):
    """What every word of a scene's sentences says after each round; the last round counts.

    There are R rounds: a guess before the first layer, then one behind each layer.
    """

    masks: Tensor
    """[R, B, L, S], logits of each superpoint's belonging to what the word names."""
    scores: Tensor
    """[R, B, L], how well the word's mask is thought to fit, as an IoU."""


class Attention(nn.Module):
    """Multi-head attention of queries to keys that are their own values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm = nn.LayerNorm(width)

    def forward(
        self,
        queries: Tensor,  # [B, M, D]
        keys: Tensor,  # [B, S, D], or [1, S, D] for all
        mask: Tensor,  # [B, M, S] or [B, 1, S] bool
    ) -> Tensor:  # [B, M, D]
        """What the queries find where the mask is on; neither residual nor norm."""
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
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None])
        return attn.out_proj(found.transpose(1, 2).flatten(2))


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
    """Every word is a query: it reads the superpoints that it took for its own, then its sentence.

    In the published network the norm behind the cross-attention has a weight but no effect.
    """

    def __init__(
        self,
        text_dim: int = 768,
        channels: int = 32,
        width: int = 256,
        heads: int = 8,
        hidden: int = 1024,
        layers: int = 6,
        normalize_found: bool = False,
    ) -> None:
        """Makes the layers.

        Args:
            text_dim: T, the width of word features.
            channels: C, the width of superpoint features.
            width: D, the width of queries.
            heads: Heads of each attention.
            hidden: Width inside the feed-forward blocks.
            layers: How many times words look, R - 1.
            normalize_found: Whether the norm behind the cross-attention counts.
        """
        super().__init__()
        self.normalize_found = normalize_found
        self.input_proj = nn.Sequential(nn.Linear(channels, width), nn.LayerNorm(width), nn.ReLU())
        self.lang_proj = nn.Linear(text_dim, width)
        self.cross_attn_layers = nn.ModuleList(Attention(width, heads) for _ in range(layers))
        self.self_attn_layers = nn.ModuleList(Attention(width, heads) for _ in range(layers))
        self.ffn_layers = nn.ModuleList(FeedForward(width, hidden) for _ in range(layers))
        self.out_norm = nn.LayerNorm(width)
        self.out_score = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
        self.x_mask = nn.Sequential(nn.Linear(channels, width), nn.ReLU(), nn.Linear(width, width))

    def forward(
        self,
        superpoints: Tensor,  # [S, C]
        words: Tensor,  # [B, L, T]
        mask: Tensor,  # [B, L] bool
    ) -> Answer:
        """Answers the sentences about one scene.

        Args:
            superpoints: Features of the scene's superpoints.
            words: Features of the sentences' words, special tokens among them.
            mask: True at words, False at padding.
        """
        queries = self.lang_proj(words)
        keys = self.input_proj(superpoints)[None]
        mask_features = self.x_mask(superpoints)
        answers = [self._answer(queries, mask_features)]
        for cross, alone, feed in zip(
            self.cross_attn_layers, self.self_attn_layers, self.ffn_layers, strict=True
        ):
            queries = queries + cross(queries, keys, _where_to_look(answers[-1][0]))
            if self.normalize_found:
                queries = cross.norm(queries)
            queries = feed(alone.norm(queries + alone(queries, queries, mask[:, None])))
            answers.append(self._answer(queries, mask_features))
        masks, scores = zip(*answers, strict=True)
        return Answer(torch.stack(masks), torch.stack(scores))

    def _answer(
        self,
        queries: Tensor,  # [B, L, D]
        mask_features: Tensor,  # [S, D]
    ) -> tuple[Tensor, Tensor]:  # [B, L, S], [B, L]
        queries = self.out_norm(queries)
        return queries @ mask_features.T, self.out_score(queries)[..., 0]


def _where_to_look(logits: Tensor) -> Tensor:  # [B, L, S] -> [B, L, S] bool
    """Where the last answer was yes; everywhere if it nowhere was."""
    is_on = logits.detach() >= 0
    return is_on | ~is_on.any(dim=-1, keepdim=True)
