"""Relations between objects: where each superpoint lies as seen from the object of each word."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detailbase.model.descriptors import DEVIATION, POSITION
from refer3d.runs.device import full_precision

REACHES = (0.2, 0.5, 1.0, 2.0)
"""Metres over which being near an object fades."""
SIZE = 32
"""Channels of a head's queries and keys."""
NUM_RELATIONS = len(REACHES) + 6
RADIUS = 1.5
"""Radius of an object over the standard deviation of its points."""
TOUCHING, LEVEL = 0.5, 0.3
"""Metres beside an object that count as above or below it, and of height that make a difference."""


class Relations(nn.Module):
    """Computes a bias of attention from the positions of objects relative to each other.

    Each word looks for the words that it stands in a relation to ("the chair by the *window*"), and
    prefers superpoints that lie as its own meaning says, as seen from the objects of those words'
    masks. The idea is that of Position3D (CVPR 2026) and of ViL3DRel's spatial attention (Chen et
    al., NeurIPS 2022); the published DetailBase knows no relations.
    """

    def __init__(self, width: int, heads: int) -> None:
        """Makes the layers; in the beginning they have no effect.

        Args:
            width: D, the width of queries.
            heads: H, the number of biases.
        """
        super().__init__()
        self.heads = heads
        self.query, self.key = nn.Linear(width, heads * SIZE), nn.Linear(width, heads * SIZE)
        self.meaning = nn.Linear(width, heads * NUM_RELATIONS)
        nn.init.zeros_(self.meaning.weight)
        nn.init.zeros_(self.meaning.bias)

    def forward(
        self,
        queries: Tensor,  # [B, L, D]
        mask: Tensor,  # [B, L] bool
        logits: Tensor,  # [B, L, S]
        objects: Tensor,  # [S, 13]
    ) -> Tensor:  # [B, H, L, S]
        """Computes the biases.

        Args:
            queries: The words.
            mask: True at words, False at padding.
            logits: Each word's last mask.
            objects: Descriptors of the object around each superpoint.
        """
        with torch.autocast(objects.device.type, enabled=False):  # bfloat16 rounds 4 m to 1.6 cm
            relations = spatial_relations(logits.detach(), full_precision(objects))  # [B, L, G, S]
        query, key = (
            layer(queries).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key)
        )
        scores = query @ key.transpose(2, 3) / SIZE**0.5
        scores = scores.masked_fill(~mask[:, None, None], -torch.inf).softmax(dim=-1)
        meaning = self.meaning(queries).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        weights = scores[..., None] * meaning[..., None, :]  # [B, H, L, L, G]
        # Heads stand beside queries: with a dimension of their own, each would get a copy of all
        # relations.
        product = weights.flatten(3).flatten(1, 2) @ relations.flatten(1, 2).to(weights)
        return product.unflatten(1, (self.heads, -1))


def spatial_relations(
    logits: Tensor,  # [B, L, S]
    objects: Tensor,  # [S, 13]
) -> Tensor:  # [B, L, G, S]
    """Describes the place of each superpoint's object as seen from each word's.

    They are: nearness at several reaches, the gap, the height above, the height above of things
    over or under it, and the direction as seen from the middle of the room: to the right, to the
    right and near, and behind. All but the sign of right stay the same in a mirror, and all in a
    turn about the vertical.
    """
    place, spread = objects[:, POSITION], objects[:, DEVIATION]
    radius = RADIUS * spread[:, :2].norm(dim=1)  # [S]
    weight = (logits.to(objects.dtype) + 10 * objects[:, -1]).softmax(
        dim=-1
    )  # 10: the log of the size
    anchor = weight @ place  # [B, L, 3]
    x, y, z = place.T[:, None, None] - anchor.movedim(-1, 0)[..., None]  # [B, L, S] each
    distance = (x.square() + y.square()).sqrt()
    gap = (distance - radius - (weight @ radius)[..., None]).clamp(min=0)
    near = [torch.exp(-((gap / reach) ** 2)) for reach in REACHES]
    above = torch.tanh(z / LEVEL)
    size = (10 * objects[:, -1]).exp()
    centre = (size @ place[:, :2]) / size.sum()
    view = anchor[..., :2] - centre
    view = view / view.norm(dim=-1, keepdim=True).clamp(min=0.1)
    ahead_x, ahead_y = view[..., None].unbind(dim=2)  # [B, L, 1] each
    right = ahead_y * x - ahead_x * y
    behind = ahead_x * x + ahead_y * y
    reach = distance + LEVEL
    right = right / reach
    others = (gap / 2, above, above * torch.exp(-((gap / TOUCHING) ** 2)))
    sides = (right, right * near[-2], behind / reach)
    return torch.stack([*near, *others, *sides], dim=2)
