"""Relations and orders of objects, from their boxes and from a camera."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from refersplat.cameras import Camera
from refersplat.language.attributes import GroupAttributes
from refersplat.language.groups import Groups

POINTS = 64
"""Gaussians of a group that stand for all of it in a view."""


@dataclass(frozen=True)
class Places:
    """Places of the G groups, in the scene and seen from a camera."""

    boxes: GroupAttributes
    points: Tensor
    """[G, P, 3] some of each group's Gaussians, in the world."""

    @classmethod
    def of(cls, groups: Groups, positions: Tensor) -> Places:
        """Samples each group's Gaussians, whose positions [N, 3] are given."""
        samples = []
        for column in groups.logits.T:
            members = (column > 0).nonzero()[:, 0]
            if not len(members):
                members = column.argmax()[None]
            rows = torch.linspace(0, len(members) - 1, POINTS, device=members.device).long()
            samples.append(positions[members[rows]])
        return cls(groups.attributes, torch.stack(samples).cpu())

    @property
    def count(self) -> int:
        """G."""
        return len(self.boxes.low)

    def relation(self, kind: str, camera: Camera | None = None) -> Tensor:  # [G, G]
        """Degree 0..1 to which a group (row) is in a relation to another (column)."""
        size = self.boxes.high - self.boxes.low
        distance, unit = self.distances()
        makers = {
            "near": lambda: (-2 * distance / unit).exp() * (1 - 2 / 3 * self._stacked()),
            "far": lambda: (distance / distance.amax().clamp(min=1e-6)).square(),
            "opposite": lambda: (distance / distance.amax().clamp(min=1e-6)).square(),
            "on": self._on,
            "under": lambda: self._on().T,
            "inside": self._inside,
            "around": lambda: self._inside().T,
            "stacked": self._stacked,
            "above": lambda: _more(self.boxes.high[:, 2], 0.1 * size[:, 2].mean()),
            "below": lambda: _more(-self.boxes.high[:, 2], 0.1 * size[:, 2].mean()),
            "taller": lambda: _more(size[:, 2].clamp(min=1e-6).log(), 0.1),
            "lower": lambda: _more(-size[:, 2].clamp(min=1e-6).log(), 0.1),
            "longer": lambda: _more(size.amax(dim=1).clamp(min=1e-6).log(), 0.1),
            "shorter": lambda: _more(-size.amax(dim=1).clamp(min=1e-6).log(), 0.1),
            "larger": lambda: _more(size.clamp(min=1e-6).log().sum(dim=1), 0.3),
            "smaller": lambda: _more(-size.clamp(min=1e-6).log().sum(dim=1), 0.3),
            "thinner": lambda: _more(-size.amin(dim=1).clamp(min=1e-6).log(), 0.1),
            "thicker": lambda: _more(size.amin(dim=1).clamp(min=1e-6).log(), 0.1),
        }
        if kind in ("left", "right", "front", "behind"):
            return self._beside(kind, camera)
        if kind in ("closer", "farther"):
            if camera is None:
                return 1 - torch.eye(self.count)
            near = self.measure("near", camera) / unit
            degree = _more(near if kind == "closer" else -near, 0.1).nan_to_num(nan=0)
            return degree * (1 - torch.eye(self.count))
        degree = makers[kind]() if kind in makers else torch.ones_like(distance)
        return degree * (1 - torch.eye(self.count))

    def triple(self, kind: str) -> Tensor:  # [G, G, G]
        """Degree to which a group (first) lies ``between`` two others, by the detour over it, or is
        ``closer`` to the second than to the third, or ``farther``.
        """
        if kind == "between":
            centres = (self.boxes.low + self.boxes.high)[:, :2] / 2
            ways = torch.cdist(centres, centres)
            detour = (ways[:, :, None] + ways[:, None, :] - ways) / ways.clamp(min=1e-6)
            same = torch.eye(self.count, dtype=torch.bool)
            excluded = same[:, :, None] | same[:, None, :] | same[None]
            return (-3 * detour).exp().masked_fill(excluded, 0)
        distance, unit = self.distances()
        difference = distance[:, None, :] - distance[:, :, None]
        return (8 * (difference if kind == "closer" else -difference) / unit).sigmoid()

    def distances(self) -> tuple[Tensor, Tensor]:  # [G, G], scalar
        """Horizontal distances, the mean of centres' and boxes', and their typical size."""
        low, high = self.boxes.low[:, :2], self.boxes.high[:, :2]
        ways = torch.cdist((low + high) / 2, (low + high) / 2)
        gaps = torch.maximum(low[:, None] - high, low - high[:, None]).clamp(min=0).norm(dim=-1)
        others = ways[~torch.eye(len(ways), dtype=torch.bool)]
        unit = others.median().clamp(min=1e-6) if len(others) else ways.new_ones(())
        return (ways + gaps) / 2, unit

    def _overlap(self) -> Tensor:  # [G, G]
        """Share of the smaller footprint that lies within the other."""
        low, high = self.boxes.low[:, :2], self.boxes.high[:, :2]
        sides = torch.minimum(high[:, None], high) - torch.maximum(low[:, None], low)
        area = (high - low).clamp(min=1e-6).prod(dim=1)
        return sides.clamp(min=0).prod(dim=-1) / torch.minimum(area[:, None], area)

    def _on(self) -> Tensor:  # [G, G]
        """A group's bottom is at the other's top, and their footprints overlap."""
        height = (self.boxes.high - self.boxes.low)[:, 2].clamp(min=1e-6)
        step = self.boxes.low[:, None, 2] - self.boxes.high[:, 2]
        tolerance = torch.minimum(height[:, None], height) / 2
        return self._overlap().sqrt() * (-(step / tolerance).square()).exp()

    def _stacked(self) -> Tensor:  # [G, G]
        """One of two groups is on the other."""
        return torch.maximum(self._on(), self._on().T)

    def _inside(self) -> Tensor:  # [G, G]
        """A group's footprint lies within the larger other's, and it is not on top of it."""
        size = (self.boxes.high - self.boxes.low).clamp(min=1e-6)
        area = size[:, :2].prod(dim=1)
        below_top = (self.boxes.high[:, 2] - self.boxes.low[:, None, 2]) / size[:, 2]
        above_bottom = self.boxes.high[:, None, 2] > self.boxes.low[:, 2]
        smaller = (4 * (area / area[:, None]).log()).sigmoid()
        return self._overlap() * smaller * (8 * (below_top - 0.2)).sigmoid() * above_bottom

    def seen(self, camera: Camera) -> tuple[Tensor, Tensor]:  # [G, P, 3], [G]
        """Points in the camera's frame, and the share of each group's that the image holds."""
        pose = camera.world_to_camera.to(self.points)
        points = self.points @ pose[:3, :3].T + pose[:3, 3]
        depth = points[..., 2].clamp(min=1e-6)
        x, y = (
            camera.fx * points[..., 0] / depth + camera.cx,
            camera.fy * points[..., 1] / depth + camera.cy,
        )
        held = (points[..., 2] > 0) & (x >= 0) & (x < camera.width) & (y >= 0) & (y < camera.height)
        return points, held.float().mean(dim=1)

    def _beside(self, kind: str, camera: Camera | None) -> Tensor:
        if camera is None:
            return 1 - torch.eye(self.count)
        centres = self.seen(camera)[0].mean(dim=1)
        distance, unit = self.distances()
        offsets = (centres[:, None] - centres)[..., [0, 2]]  # [G, G, 2] to the right, away
        if kind in ("front", "behind"):
            offsets = offsets.flip(-1)
        along = offsets[..., 0] if kind in ("right", "behind") else -offsets[..., 0]
        straight = along.abs() / offsets.norm(dim=-1).clamp(min=1e-6)
        degree = (8 * along / unit).sigmoid() * straight * (-distance / unit).exp()
        return degree * (1 - torch.eye(self.count))

    def measure(self, name: str, camera: Camera | None = None) -> Tensor:  # [G]
        """The measure that a rank orders by; NaN where it cannot be told."""
        size = (self.boxes.high - self.boxes.low).clamp(min=1e-6)
        centres = (self.boxes.low + self.boxes.high) / 2
        if name in ("right", "depth", "near"):
            if camera is None:
                return torch.full((self.count,), torch.nan)
            points, share = self.seen(camera)
            depth = points[..., 2].mean(dim=1)
            value = {
                "right": points[..., 0].mean(dim=1) / depth.clamp(min=1e-6),
                "depth": depth,
                "near": -points.norm(dim=-1).quantile(0.1, dim=1),
            }[name]
            return value.masked_fill(share < 0.2, torch.nan)
        return {
            "height": size[:, 2],
            "length": size.amax(dim=1),
            "volume": size.prod(dim=1),
            "slenderness": -size.sort(dim=1).values[:, :2].prod(dim=1),
            "elevation": self.boxes.low[:, 2],
            "altitude": self.boxes.high[:, 2],
            "centrality": -(centres - centres.mean(dim=0))[:, :2].norm(dim=1),
        }[name]


def _more(values: Tensor, width: Tensor | float) -> Tensor:
    """Degree to which a group's value (row) exceeds another's (column)."""
    return ((values[:, None] - values) / width).sigmoid()
