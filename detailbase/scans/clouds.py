"""Clouds of points with superpoints and objects, and the files of prepared scans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from detailbase.config import NUM_CLASSES, DataConfig
from refer3d.runs.errors import InputError
from refer3d.runs.states import read_tensors, save_state

NONE = -100
"""Label of a point that has none."""
"""ScanNet's."""
SUFFIX = "_refer.pth"
LARGEST = 200.0
"""Largest extent of a scan in metres; a larger one is in another unit."""
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.uint8)
PARTS = ("xyz", "rgb", "superpoints", "semantic", "instances")


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
        """S, the number of superpoints."""
        return int(self.superpoints.max()) + 1 if len(self) else 0

    def select(self, kept: Tensor) -> Cloud:  # [N] bool
        """Keeps some of the points; superpoints are renumbered."""
        superpoints = self.superpoints[kept].unique(return_inverse=True)[1]
        rows = (self.xyz[kept], self.rgb[kept])
        return Cloud(*rows, superpoints, self.semantic[kept], self.instances[kept])


def save_cloud(cloud: Cloud, path: Path) -> None:
    """Writes a prepared scan: the tuple (xyz, rgb, superpoints, semantic, instances)."""
    save_state(path, tuple(getattr(cloud, name) for name in PARTS))


def load_cloud(path: Path) -> Cloud:
    """Reads a prepared scan.

    Superpoints may have any numbers from 0; they are renumbered without gaps.

    Raises:
        InputError: The file is absent, cut, or holds something else.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; run scripts/prepare_scannet.py")
    again = "prepare it again with scripts/prepare_scannet.py --force"
    parts = read_tensors(path, again)
    is_list = isinstance(parts, (tuple, list)) and len(parts) == len(PARTS)
    if not is_list or not all(isinstance(part, Tensor) for part in parts):
        fault = f"expected five tensors, {', '.join(PARTS)}, got {type(parts).__name__}"
    else:
        fault = _find_fault(parts)
    if fault:
        raise InputError(f"{path}: {fault}; {again}")
    xyz, rgb, superpoints, semantic, instances = parts
    check_extent(xyz, path)
    superpoints = superpoints.unique(return_inverse=True)[1]
    return Cloud(xyz.float(), rgb.float(), superpoints, semantic.long(), instances.long())


def prepared_folder(options: DataConfig) -> Path:
    """Returns the folder of prepared scans: ``--data.prepared``, or below ``--data.root``."""
    if options.prepared:
        return Path(options.prepared)
    nested = Path(options.root, "scannetv2")
    return nested if nested.is_dir() else Path(options.root)


def find_clouds(folder: Path, scene_ids: set[str]) -> dict[str, Path]:
    """Finds the files of prepared scans.

    Raises:
        InputError: One is neither in ``train/`` nor in ``val/``.
    """
    paths = {}
    for scene_id in sorted(scene_ids):
        places = [folder / split / f"{scene_id}{SUFFIX}" for split in ("train", "val")]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise InputError(
                f"{folder}: neither train/ nor val/ holds {scene_id}{SUFFIX}; "
                "run scripts/prepare_scannet.py"
            )
        paths[scene_id] = path
    return paths


def check_extent(xyz: Tensor, path: Path) -> None:  # [N, 3]
    """Checks that a scan can be in metres.

    Raises:
        InputError: It is too large.
    """
    extent = float((xyz.amax(dim=0) - xyz.amin(dim=0)).max())
    if extent > LARGEST:
        raise InputError(
            f"{path}: reaches over {extent:.4g} m, expected at most {LARGEST:g}; give it in metres"
        )


def _find_fault(parts: Sequence[Tensor]) -> str | None:
    """Describes the first fault of a prepared scan's tensors."""
    count = parts[0].shape[0] if parts[0].ndim else 0
    for name, part in zip(PARTS, parts, strict=True):
        is_row = name in ("xyz", "rgb")
        shape = [count, 3] if is_row else [count]
        if list(part.shape) != shape:
            return f"{name} must have shape {shape}, got {list(part.shape)}"
        if not (part.is_floating_point() if is_row else part.dtype in INTEGERS):
            kind = "floating point" if is_row else "whole numbers"
            return f"{name} must be {kind}, got {str(part.dtype)[6:]}"
        if is_row and not part.isfinite().all():
            return f"{name} must be finite, row {int((~part.isfinite()).any(dim=1).int().argmax())}"
    if not count:
        return "holds no points"
    if float(parts[1].abs().max()) > 1.001:
        return f"rgb must be -1 to 1, got {float(parts[1].abs().max()):g}"
    if int(parts[2].min()) < 0:
        return f"superpoints must not be negative, got {int(parts[2].min())}"
    unknown = parts[3][(parts[3] != NONE) & ((parts[3] < 0) | (parts[3] >= NUM_CLASSES))]
    if len(unknown):
        return f"semantic must be 0 to {NUM_CLASSES - 1} or {NONE}, got {int(unknown[0])}"
    return None
