"""Clouds of points with their superpoints and objects, and the files they are kept in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from runs.errors import InputError
from runs.files import write_whole

NONE = -100
"""Label of a point that has none."""
SUFFIX = "_refer.pth"


@dataclass(frozen=True)
class Cloud:
    """A scan."""

    xyz: Tensor
    """[N, 3] float32, metres, z up, centred on their mean."""
    rgb: Tensor
    """[N, 3] float32, -1 to 1."""
    superpoints: Tensor
    """[N] int64, numbered from 0 without gaps."""
    semantic: Tensor
    """[N] int64, 0 to 19 for ScanNet's classes, else ``NONE``."""
    instances: Tensor
    """[N] int64, each point's object id, or ``NONE``."""

    def __len__(self) -> int:
        """N."""
        return len(self.xyz)

    @property
    def num_superpoints(self) -> int:
        """S."""
        return int(self.superpoints.max()) + 1 if len(self) else 0

    def select(self, kept: Tensor) -> Cloud:  # [N] bool
        """Some of the points; superpoints are numbered anew."""
        superpoints = self.superpoints[kept].unique(return_inverse=True)[1]
        rows = (self.xyz[kept], self.rgb[kept])
        return Cloud(*rows, superpoints, self.semantic[kept], self.instances[kept])


def save_cloud(cloud: Cloud, path: Path) -> None:
    """Writes a prepared scan: the tuple (xyz, rgb, superpoints, semantic, instances)."""
    state = (cloud.xyz, cloud.rgb, cloud.superpoints, cloud.semantic, cloud.instances)
    with write_whole(path) as file:
        torch.save(state, file)


def load_cloud(path: Path) -> Cloud:
    """Reads a prepared scan.

    Raises:
        InputError: The file is absent, cut, or holds something else.
    """
    again = "prepare it again with scripts/prepare_scannet.py --force"
    if not path.is_file():
        raise InputError(f"{path}: no such file; run scripts/prepare_scannet.py")
    try:
        parts = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no pickle make its reader fail in any way
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: cannot be read ({reason}); {again}") from error
    if not isinstance(parts, (tuple, list)) or len(parts) != 5:
        raise InputError(f"{path}: expected five arrays, got {type(parts).__name__}; {again}")
    parts = [torch.as_tensor(part) for part in parts]
    count = len(parts[0])
    names = ("xyz", "rgb", "superpoints", "semantic", "instances")
    for name, part, shape in zip(names, parts, [(count, 3)] * 2 + [(count,)] * 3, strict=True):
        if tuple(part.shape) != shape:
            raise InputError(
                f"{path}: {name} must have shape {list(shape)}, got {list(part.shape)}; {again}"
            )
    xyz, rgb, *labels = parts
    if not count:
        raise InputError(f"{path}: holds no points; {again}")
    if not (xyz.isfinite().all() and rgb.isfinite().all()):
        raise InputError(f"{path}: holds numbers that are not finite; {again}")
    if int(labels[0].min()) < 0:
        raise InputError(f"{path}: superpoints must not be negative; {again}")
    return Cloud(xyz.float(), rgb.float(), *(label.long() for label in labels))
