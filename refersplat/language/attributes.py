"""Places, sizes and colours of groups of Gaussians, and scores of the words that name them.

"The tallest", "blue" or "next to the bowl" cannot be read from embeddings: the Gaussians tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from refersplat.language.phrases import COLORS, Phrases, Relation
from refersplat.ops.reference import SH_0
from refersplat.splats.gaussians import Gaussians

BOX_MARGIN = 0.02
"""Share of what is visible of a group that lies beyond each side of its box: stray Gaussians."""
SHARPNESS = 4.0
"""Slope of a relation's logits, per typical distance between two objects."""
UNKNOWN = 0.02
"""Probability of a group that a relation rules out: sentences and boxes are both loose."""


@dataclass(frozen=True)
class GroupAttributes:
    """Upright boxes around groups of Gaussians, and their colours."""

    low: Tensor
    """[G, 3] the box's least corner; the third axis points up."""
    high: Tensor
    """[G, 3] its greatest corner."""
    colors: Tensor
    """[G, 11] the visible share of each of ``COLORS``."""

    def measures(self) -> dict[str, Tensor]:
        """Returns the measures that words of size grade, each [G], standardised over the groups."""
        size = (self.high - self.low).clamp(min=1e-6)
        centres = (self.low + self.high)[:, :2] / 2
        values = {
            "height": size[:, 2].log(),
            "length": size.amax(dim=1).log(),
            "volume": size.log().sum(dim=1),
            "slenderness": -size.sort(dim=1).values[:, :2].log().sum(dim=1),
            "elevation": self.low[:, 2],
            "centrality": -(centres - centres.mean(dim=0)).norm(dim=1),
        }
        return {name: _standardised(value) for name, value in values.items()}

    def color_scores(self, sentences: Sequence[Phrases]) -> Tensor:  # [B, G]
        """Scores the groups' colours by the colours that each sentence names."""
        names = list(COLORS)
        shares = (self.colors + 0.1).log()  # a label's colour need not be the object's
        return torch.stack(
            [
                shares[:, [names.index(color) for color in phrases.colors]].sum(dim=1)
                for phrases in sentences
            ]
        )

    def size_scores(self, sentences: Sequence[Phrases]) -> Tensor:  # [B, G]
        """Scores the groups' measures by each sentence's words of size."""
        measures = self.measures()
        scores = self.low.new_zeros(len(sentences), len(self.low))
        for row, phrases in zip(scores, sentences, strict=True):
            for name, direction, strength in phrases.sizes:
                row += (strength * direction * measures[name]).log_softmax(dim=0)
        return scores

    def relation_score(self, relation: Relation, anchors: Sequence[Tensor]) -> Tensor:  # [G]
        """Returns the log probability that a group stands in a relation to the anchors.

        Args:
            relation: The relation that a sentence states.
            anchors: [G] probabilities of each anchor to be each group. Where they sum to less than
                1, the anchor may be no group, and then the relation tells nothing.
        """
        count = len(self.low)
        if not relation.anchors:
            return self._extreme(relation.kind).log_softmax(dim=0)
        if relation.kind == "between" and len(anchors) == 2:
            pairs = (anchors[0][:, None] * anchors[1]).fill_diagonal_(0)
            logits = self._between()
        else:
            pairs = anchors[0][:, None]
            logits = self._relative(relation.kind)[:, :, None]
        supported = torch.einsum("gab,ab->g", logits.softmax(dim=0), pairs)
        return (supported + (1 - pairs.sum()) / count + UNKNOWN).log()

    def _extreme(self, kind: str) -> Tensor:  # [G]
        """Logits of a group to exceed all others: "taller than everything"."""
        graded = {"taller": ("height", 3), "lower": ("height", -3)}
        graded |= {"larger": ("volume", 3), "smaller": ("volume", -3)}
        name, strength = graded.get(kind, ("height", 0))
        return strength * self.measures()[name]

    def _relative(self, kind: str) -> Tensor:  # [G, G]
        """Logits of a group (row) to be in a relation to another (column), never to itself."""
        distance, unit = self._distances()
        bottom, top = self.low[:, 2], self.high[:, 2]
        height, volume = (top - bottom).clamp(min=1e-6).log(), self._volume()
        stacked = distance + (bottom[:, None] - top).abs()
        logits = {
            "near": -SHARPNESS * distance / unit,
            "between": -SHARPNESS * distance / unit,
            "far": SHARPNESS * distance / unit,
            "above": -2 * SHARPNESS * stacked / unit,
            "below": -2 * SHARPNESS * stacked.T / unit,
            "taller": 3 * (4 * (height[:, None] - height)).tanh(),
            "lower": -3 * (4 * (height[:, None] - height)).tanh(),
            "larger": 3 * (volume[:, None] - volume).tanh(),
            "smaller": -3 * (volume[:, None] - volume).tanh(),
        }.get(kind, torch.zeros_like(distance))
        itself = torch.eye(len(distance), dtype=torch.bool, device=distance.device)
        return torch.where(itself, logits.amax(dim=0, keepdim=True) - 6, logits)

    def _between(self) -> Tensor:  # [G, G, G]
        """Logits of a group (first) to be between two others, by the detour over it."""
        centres = (self.low + self.high)[:, :2] / 2
        ways = torch.cdist(centres, centres)
        detour = ways[:, :, None] + ways[:, None, :] - ways[None]
        logits = -SHARPNESS * detour / self._distances()[1]
        itself = torch.eye(len(ways), dtype=torch.bool, device=ways.device)
        excluded = itself[:, :, None] | itself[:, None, :]
        return torch.where(excluded, logits.amax(dim=0, keepdim=True) - 6, logits)

    def _distances(self) -> tuple[Tensor, Tensor]:  # [G, G], scalar
        """Horizontal distances, the mean of centres' and boxes', and their typical size."""
        low, high = self.low[:, :2], self.high[:, :2]
        ways = torch.cdist((low + high) / 2, (low + high) / 2)
        gaps = torch.maximum(low[:, None] - high, low - high[:, None]).clamp(min=0).norm(dim=-1)
        others = ways[~torch.eye(len(ways), dtype=torch.bool, device=ways.device)]
        unit = others.median().clamp(min=1e-6) if len(others) else ways.new_ones(())
        return (ways + gaps) / 2, unit

    def _volume(self) -> Tensor:  # [G]
        return (self.high - self.low).clamp(min=1e-6).log().sum(dim=1)


def _standardised(values: Tensor) -> Tensor:
    """Scales to zero mean and unit deviation; zeros where all values are alike."""
    centred = values - values.mean()
    return centred / centred.square().mean().sqrt().clamp(min=1e-6)


def name_colors(rgb: Tensor) -> Tensor:  # [N, 3] -> [N] int64
    """Names colours in 0..1 by the basic colour, an index into ``COLORS``."""
    names = {name: index for index, name in enumerate(COLORS)}
    value, least = rgb.amax(dim=1), rgb.amin(dim=1)
    chroma = value - least
    red, green, blue = rgb.unbind(dim=1)
    sector = torch.where(
        value == red, (green - blue), torch.where(value == green, blue - red, red - green)
    )
    offset = torch.where(value == red, 0.0, torch.where(value == green, 2.0, 4.0))
    hue = (60 * (offset + sector / chroma.clamp(min=1e-6))) % 360
    edges = rgb.new_tensor([18, 42, 70, 170, 260, 300, 342])
    hues = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "red"]
    index = rgb.new_tensor([names[name] for name in hues]).long()[torch.bucketize(hue, edges)]
    saturation = chroma / value.clamp(min=1e-6)
    index[(hue > 12) & (hue < 42) & (saturation < 0.75) & (value < 0.65)] = names["brown"]
    index[saturation < 0.22] = names["gray"]
    index[(saturation < 0.22) & (value > 0.7)] = names["white"]
    index[value < 0.2] = names["black"]
    return index


def measure_groups(
    gaussians: Gaussians,
    visible: Tensor,  # [N, G]
    up: Tensor,  # [3]
) -> GroupAttributes:
    """Measures groups of Gaussians; the result lies on the CPU, where sentences are matched.

    Args:
        gaussians: The trained scene.
        visible: Pixels that each Gaussian fills as a part of each group; 0 for others.
        up: Direction away from the ground, of any length.
    """
    up = F.normalize(up, dim=0)
    across = torch.linalg.svd(up[None]).Vh[1:]  # two directions that span the ground
    coordinates = gaussians.means @ torch.cat([across, up[None]]).T  # [N, 3]
    share = visible / visible.sum(dim=0).clamp(min=1e-6)
    order = coordinates.argsort(dim=0)  # [N, 3]
    low, high = (visible.new_zeros(visible.shape[1], 3) for _ in range(2))
    for axis, rows in enumerate(order.unbind(dim=1)):
        below = share[rows].cumsum(dim=0)  # [N, G]
        along = coordinates[rows, axis].contiguous()
        last = len(along) - 1
        for bound, level in ((low, BOX_MARGIN), (high, 1 - BOX_MARGIN)):
            bound[:, axis] = along[(below < level).sum(dim=0).clamp(max=last)]
    rgb = (gaussians.sh[:, 0] * SH_0 + 0.5).clamp(0, 1)
    named = F.one_hot(name_colors(rgb), len(COLORS)).to(share.dtype)
    return GroupAttributes(low.cpu(), high.cpu(), (share.T @ named).cpu())
