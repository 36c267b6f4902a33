"""Places, sizes and colours of groups of Gaussians.

"The tallest", "blue" or "next to the bowl" cannot be read from embeddings: the Gaussians tell.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from refer3d.language import COLORS
from refersplat.ops.reference import SH_0
from refersplat.splats.gaussians import Gaussians

BOX_MARGIN = 0.02
"""Share of what is visible of a group that lies beyond each side of its box: stray Gaussians."""


@dataclass(frozen=True)
class GroupAttributes:
    """Upright boxes around groups of Gaussians, and their colours."""

    low: Tensor
    """[G, 3] the box's least corner; the third axis points up."""
    high: Tensor
    """[G, 3] its greatest corner."""
    colors: Tensor
    """[G, 11] the visible share of each of ``COLORS``."""


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
