"""Network of the referring field: responses of Gaussians to sentences."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from refer3d.text_encoder import TextFeatures
from refersplat.field.folded import Interaction

SENTENCES_AT_ONCE = 16
"""Sentences that share a pass over the Gaussians in inference."""


class Mlp(nn.Module):
    """Three linear layers with ReLU between them."""

    def __init__(self, *widths: int) -> None:
        """Makes layers of these ``widths``, from the input's to the output's."""
        super().__init__()
        self.fc1, self.fc2, self.fc3 = (
            nn.Linear(before, after) for before, after in itertools.pairwise(widths)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps the last dimension."""
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


class CrossAttention(nn.Module):
    """Attention of Gaussians to the words of a sentence; both have positions in space."""

    def __init__(self, width: int) -> None:
        """Makes one head of ``width`` channels."""
        super().__init__()
        self.q_linear = nn.Linear(width, width)
        self.k_linear = nn.Linear(width, width)
        self.v_linear = nn.Linear(width, width)
        self.gp_linear = nn.Linear(width, width)
        self.kp_linear = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def keys(
        self,
        words: Tensor,  # [B, L, D]
        word_positions: Tensor,  # [B, L, D]
    ) -> Tensor:  # [B, L, D]
        """Returns the keys of the words."""
        return self.k_linear(words) + self.kp_linear(word_positions)

    def forward(
        self,
        gaussians: Tensor,  # [N, D]
        positions: Tensor,  # [N, D]
        words: Tensor,  # [B, L, D]
        mask: Tensor,  # [B, L]
    ) -> Tensor:  # [B, N, D]
        """Returns the Gaussians' features after attention to each sentence."""
        # A word has no position of its own: it takes those of the Gaussians that match it.
        matches = (words @ gaussians.T).softmax(dim=-1)  # [B, L, N]
        query = self.q_linear(gaussians) + self.gp_linear(positions)  # [N, D]
        key = self.keys(words, matches @ positions)  # [B, L, D]
        logits = query @ key.mT / query.shape[-1] ** 0.5  # [B, N, L]
        attention = logits.masked_fill(~mask[:, None], -torch.inf).softmax(dim=-1)
        return self.norm(gaussians + attention @ self.v_linear(words))


class ReferringField(nn.Module):
    """Maps a sentence to a response of each Gaussian (ReferSplat, He et al. 2025).

    Words attend to where their Gaussians are, Gaussians attend to the words, and a Gaussian's
    response is its similarity to all words together. The submodules carry the published code's
    names, so that its weights fit here and ours fit there.

    ``forward`` is the definition. ``interact`` and ``respond`` compute the same without any tensor
    of N × D, several sentences at a time.
    """

    def __init__(self, text_dim: int, feature_dim: int = 16, width: int = 128) -> None:
        """Makes the networks.

        Args:
            text_dim: T, width of the text encoder.
            feature_dim: C, width of a Gaussian's referring feature.
            width: D, width of the attention.
        """
        super().__init__()
        self.mlp1 = Mlp(text_dim, 512, 256, width)
        self.mlp2 = Mlp(feature_dim, 32, 64, width)
        self.mlp3 = Mlp(3, 16, 64, width)
        self.cross_attention = CrossAttention(width)

    def embed_words(self, text: TextFeatures) -> Tensor:  # [B, L, D]
        """Embeds the words; padding is zero."""
        return self.mlp1(text.words) * text.mask[..., None]

    def forward(
        self,
        features: Tensor,  # [N, C]
        positions: Tensor,  # [N, 3]
        words: Tensor,  # [B, L, D]
        mask: Tensor,  # [B, L]
    ) -> Tensor:  # [B, N, D]
        """Returns each Gaussian's features after attention to each sentence."""
        places = F.normalize(self.mlp3(positions), dim=-1)
        return self.cross_attention(self.mlp2(features), places, words, mask)

    def interact(
        self,
        features: Tensor,  # [N, C]
        positions: Tensor,  # [N, 3]
        words: Tensor,  # [B, L, D]
        mask: Tensor,  # [B, L]
        visible: tuple[Tensor, Tensor] | None = None,  # [K], [N - K]
    ) -> Interaction:
        """Computes the responses to a few sentences, and means of ``forward`` over some Gaussians.

        ``visible`` holds the rows of some Gaussians, and of all others: only the first respond, in
        that order. All of them still give the words their positions.
        """
        return Interaction(self, features, positions, words, mask, visible)

    @torch.no_grad()
    def respond(
        self,
        features: Tensor,  # [N, C]
        positions: Tensor,  # [N, 3]
        text: TextFeatures,
    ) -> Tensor:  # [B, N]
        """Returns the logits of each Gaussian's response to any number of sentences."""
        return torch.cat(
            [
                self.interact(features, positions, self.embed_words(part), part.mask).responses
                for part in (
                    text[start : start + SENTENCES_AT_ONCE]
                    for start in range(0, len(text), SENTENCES_AT_ONCE)
                )
            ]
        )
