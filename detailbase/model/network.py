"""The whole network: a cloud and sentences about it to a mask for every word."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detailbase.model.backbone import CHANNELS, Level, SparseUNet
from detailbase.model.decoder import Decoder
from detailbase.model.descriptors import NUM_FACTS, facts, moments
from detailbase.model.norm import BatchNorm
from detailbase.model.objects import Asked, Objects
from detailbase.ops import segment_reduce
from refer3d.runs.device import to_device


@dataclass(frozen=True)
class Predictions:
    """What every word says after each of R rounds; the last round is the answer.

    Words are queries: query 0 is the begin token, query k + 1 is word k.
    """

    masks: tuple[Tensor, ...]
    """For each of B sentences [R, L, S], logits over the superpoints of its scene."""
    scores: Tensor
    """[R, B, L], how well each mask is thought to fit, as an IoU."""
    classes: Tensor | None = None
    """[S, classes] logits of each superpoint's class, where the network learns them."""
    objects: tuple[Asked, ...] | None = None
    """For each scene, whether two superpoints are of one object, where the network learns it."""


class DetailBase(SparseUNet):
    """Features of superpoints from a sparse U-Net, and a decoder in which words look for theirs.

    The text encoder is frozen and stays outside.
    """

    def __init__(
        self,
        text_dim: int = 768,
        channels: Sequence[int] = CHANNELS,
        width: int = 256,
        heads: int = 8,
        hidden: int = 1024,
        layers: int = 6,
        normalize_found: bool = False,
        use_facts: bool = False,
        objects: int = 0,
        classes: int = 0,
    ) -> None:
        """Makes the network; see :class:`SparseUNet` and :class:`Decoder`.

        Args:
            text_dim: T, the width of word features.
            channels: Widths of the U-Net's levels.
            width: D, the width of the decoder.
            heads: Heads of its attention.
            hidden: Width inside its feed-forward blocks.
            layers: How many times words look.
            normalize_found: Whether the norm behind the cross-attention counts.
            use_facts: Whether the decoder is told the :func:`facts` of superpoints, beside what the
                U-Net found. The published network is not.
            objects: In how many learned dimensions superpoints of an object come together, so that
                the decoder is told what they are as a whole; 0, as published, for not at all.
            classes: How many classes of superpoints are predicted beside, so that the U-Net learns
                from every one of them; the published network learns none.
        """
        super().__init__(channels=channels)
        seen = channels[0]
        if use_facts:
            self.facts = nn.Sequential(
                BatchNorm(NUM_FACTS, affine=False),
                *(nn.Linear(NUM_FACTS, 2 * seen), nn.ReLU(), nn.Linear(2 * seen, seen)),
                nn.LayerNorm(seen),
            )
            seen *= 2
        if objects:
            self.objects = Objects(seen, objects)
            seen = self.objects.channels
        if classes:
            self.classify = nn.Linear(seen, classes)
        self.decoder = Decoder(text_dim, seen, width, heads, hidden, layers, normalize_found)

    def embed_superpoints(
        self,
        features: Tensor,  # [M, 6]
        voxels: Tensor,  # [M, 4]
        point_to_voxel: Tensor,  # [N]
        superpoints: Tensor,  # [N]
        starts: Sequence[int],
        levels: Sequence[Level] | None = None,
    ) -> tuple[Tensor, tuple[Asked, ...] | None]:  # [S, C]
        """Features of superpoints, and which belong to one object, where that is learned.

        The features are the mean of the U-Net's over each superpoint's points, then perhaps its
        facts, then perhaps those of its object.
        """
        points = super().forward(features, voxels, levels).index_select(0, point_to_voxel)
        found = segment_reduce(points, superpoints, starts[-1], "mean")
        if not (hasattr(self, "facts") or hasattr(self, "objects")):
            return found, None
        sums = moments(features.index_select(0, point_to_voxel), superpoints, starts[-1])
        if hasattr(self, "facts"):
            found = torch.cat([found, self.facts(facts(sums))], dim=1)
        return self.objects(found, sums, starts) if hasattr(self, "objects") else (found, None)

    def forward(
        self,
        features: Tensor,  # [M, 6]
        voxels: Tensor,  # [M, 4]
        point_to_voxel: Tensor,  # [N]
        superpoints: Tensor,  # [N]
        superpoint_starts: Sequence[int],
        words: Tensor,  # [B, L, T]
        mask: Tensor,  # [B, L] bool
        scene_of_sentence: Sequence[int],
        levels: Sequence[Level] | None = None,
    ) -> Predictions:
        """Answers sentences about scenes.

        Args:
            features: Each voxel's colour and place, the means of its points.
            voxels: Distinct (scene, x, y, z).
            point_to_voxel: Each point's row of ``voxels``.
            superpoints: Each point's superpoint; those of all scenes are numbered together.
            superpoint_starts: Each scene's first superpoint, then how many there are.
            words: Features of the sentences' words between those of their begin and end tokens.
            mask: True at words and tokens, False at padding.
            scene_of_sentence: Each sentence's scene.
            levels: The U-Net's kernel maps, where they were built before.
        """
        starts = [int(start) for start in superpoint_starts]
        scene_of_sentence = [int(scene) for scene in scene_of_sentence]
        embedded, objects = self.embed_superpoints(
            features, voxels, point_to_voxel, superpoints, starts, levels
        )
        masks: dict[int, Tensor] = {}
        scores: dict[int, Tensor] = {}
        for scene, (start, end) in enumerate(itertools.pairwise(starts)):
            asked = [row for row, other in enumerate(scene_of_sentence) if other == scene]
            if asked:
                rows = to_device(torch.tensor(asked), words.device)
                own_words, own_mask = words.index_select(0, rows), mask.index_select(0, rows)
                answer = self.decoder(embedded[start:end], own_words, own_mask)
                masks.update(zip(asked, answer.masks.unbind(dim=1), strict=True))
                scores.update(zip(asked, answer.scores.unbind(dim=1), strict=True))
        return Predictions(
            tuple(masks[row] for row in range(len(words))),
            torch.stack([scores[row] for row in range(len(words))], dim=1),
            self.classify(embedded) if hasattr(self, "classify") else None,
            objects,
        )
