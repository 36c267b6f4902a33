"""The network: masks of a scene's superpoints for every word of the sentences about it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detailbase.model.backbone import Backbone
from detailbase.model.decoder import Decoder
from detailbase.model.descriptors import DescriptorEncoder, describe, moments
from detailbase.model.grouping import ObjectGrouping, PairLogits
from detailbase.ops import segment_reduce
from refer3d.native import outside_graphs
from refer3d.runs.device import to_device

SIMILAR = 6
"""Sentences of similar length that a CPU decodes at once."""


@dataclass(frozen=True)
class Predictions:
    """Masks, scores and auxiliary outputs after each of R rounds; the last round is the answer.

    Words are queries: query 0 is the begin token, query k + 1 is word k.
    """

    masks: tuple[Tensor, ...]
    """For each of B sentences [R, L', S], logits over the superpoints of its scene; L' is at least
    the number of its words and tokens."""
    scores: Tensor
    """[R, B, L], the predicted IoU of each mask."""
    classes: Tensor | None = None
    """[S, classes] logits of each superpoint's class; None without a classifier."""
    pairs: tuple[PairLogits, ...] | None = None
    """For each scene, whether two superpoints belong to one object; None without grouping and in
    evaluation."""
    choices: Tensor | None = None
    """[R, B, L, 2] logits of a word's meaning none and several of the objects; None without
    choice."""
    objects: tuple[Tensor, ...] | None = None
    """For each scene [S], the object of each superpoint; None without choice and in training."""
    sizes: Tensor | None = None
    """[S] points of the superpoints of all scenes; None without descriptors and grouping."""


class DetailBase(nn.Module):
    """Pools a backbone's features over superpoints and decodes a mask for every word.

    The parts are injected; :func:`detailbase.model.build.build` makes them as the options say. The
    text encoder is frozen and stays outside.
    """

    def __init__(
        self,
        backbone: Backbone,
        decoder: Decoder,
        descriptors: DescriptorEncoder | None = None,
        grouping: ObjectGrouping | None = None,
        classifier: nn.Module | None = None,
    ) -> None:
        """Joins the parts.

        Args:
            backbone: Computes C features of each voxel.
            decoder: Takes superpoint features of the width that the parts before it give.
            descriptors: Adds C features of each superpoint's measured descriptors.
            grouping: Triples the features: adds those of the object around each superpoint.
            classifier: Maps the decoder's input to class logits, an auxiliary task.
        """
        super().__init__()
        self.backbone = backbone
        self.descriptors = descriptors
        self.grouping = grouping
        self.classifier = classifier
        self.decoder = decoder

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
    ) -> Predictions:
        """Predicts masks for sentences about scenes.

        A superpoint's features are the mean of the backbone's over its points, then its embedded
        descriptors, then the features of its object, as far as there are such parts.

        Args:
            features: Each voxel's colour and place, the means of its points.
            voxels: Distinct (scene, x, y, z).
            point_to_voxel: Each point's row of ``voxels``.
            superpoints: Each point's superpoint; those of all scenes are numbered together.
            superpoint_starts: Each scene's first superpoint, then the number of superpoints.
            words: Features of the sentences' words between those of their begin and end tokens.
            mask: True at words and tokens, False at padding.
            scene_of_sentence: Each sentence's scene.
        """
        starts = [int(start) for start in superpoint_starts]
        scene_of_sentence = [int(scene) for scene in scene_of_sentence]
        points = self.backbone(features, voxels).index_select(0, point_to_voxel)
        embedded = segment_reduce(points, superpoints, starts[-1], "mean")
        grouped = sizes = objects = None
        if self.descriptors is not None or self.grouping is not None:
            sums = moments(features.index_select(0, point_to_voxel), superpoints, starts[-1])
            sizes = sums[:, -1]
            if self.descriptors is not None:
                embedded = torch.cat([embedded, self.descriptors(describe(sums))], dim=1)
            if self.grouping is not None:
                grouped = self.grouping(embedded, sums, starts)
                embedded = grouped.features
                if self.decoder.out_choice is not None and not self.training:
                    scenes = [slice(*pair) for pair in itertools.pairwise(starts)]
                    objects = tuple(
                        self.grouping.partition(grouped.places[scene], sizes[scene])
                        for scene in scenes
                    )
        masks, scores, choices = self._decode(
            embedded,
            None if grouped is None else grouped.objects,
            starts,
            (words, mask, scene_of_sentence),
        )
        return Predictions(
            masks,
            scores,
            None if self.classifier is None else self.classifier(embedded),
            None if grouped is None else grouped.pairs,
            choices,
            objects,
            sizes,
        )

    def _decode(
        self,
        embedded: Tensor,  # [S, C]
        objects: Tensor | None,
        starts: Sequence[int],
        sentences: tuple[Tensor, Tensor, Sequence[int]],
    ) -> tuple[tuple[Tensor, ...], Tensor, Tensor | None]:
        """Decodes sentences scene by scene; masks, scores and choices are in their own order."""
        words, mask, scene_of_sentence = sentences
        masks: dict[int, Tensor] = {}
        scores: dict[int, Tensor] = {}
        choices: dict[int, Tensor] = {}
        for scene, (start, end) in enumerate(itertools.pairwise(starts)):
            rows = [row for row, other in enumerate(scene_of_sentence) if other == scene]
            for some, length in similar(rows, mask):
                picked = to_device(torch.tensor(some), words.device)
                output = self.decoder(
                    embedded[start:end],
                    words[:, :length].index_select(0, picked),
                    mask[:, :length].index_select(0, picked),
                    None if objects is None else objects[start:end],
                )
                left = mask.shape[1] - length
                masks.update(zip(some, output.masks.unbind(dim=1), strict=True))
                scores.update(zip(some, F.pad(output.scores, (0, left)).unbind(dim=1), strict=True))
                if output.choices is not None:
                    padded = F.pad(output.choices, (0, 0, 0, left))
                    choices.update(zip(some, padded.unbind(dim=1), strict=True))
        order = range(len(words))
        return (
            tuple(masks[row] for row in order),
            torch.stack([scores[row] for row in order], dim=1),
            torch.stack([choices[row] for row in order], dim=1) if choices else None,
        )


@outside_graphs
def similar(
    sentences: Sequence[int],
    mask: Tensor,  # [B, L] bool
) -> list[tuple[list[int], int]]:
    """Splits sentences so that none is padded much: into groups of ``SIMILAR``, by length.

    On a GPU, whose time goes into starting kernels, all stay together.

    Args:
        sentences: Rows of the mask.
        mask: True at words and tokens, False at padding behind them.

    Returns:
        Each group's sentences, and the length of its longest.
    """
    if mask.device.type != "cpu":
        return [([*sentences], mask.shape[1])] if sentences else []
    lengths = mask.sum(dim=1).tolist()
    ordered = sorted(sentences, key=lengths.__getitem__)
    groups = [ordered[start : start + SIMILAR] for start in range(0, len(ordered), SIMILAR)]
    return [(group, lengths[group[-1]]) for group in groups]
