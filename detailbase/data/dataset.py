"""Batches of scans with descriptions, the same for the same seed whatever the number of workers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from detailbase.config import DataConfig
from detailbase.data.augment import augment
from detailbase.data.clouds import SUFFIX, Cloud, load_cloud
from detailbase.data.references import Phrase, Reference
from detailbase.ops import segment_reduce, voxelize
from runs.errors import InputError


@dataclass(frozen=True)
class Batch:
    """Scans with descriptions; points, voxels and superpoints of all scans stand together."""

    features: Tensor
    """[M, 6] each voxel's colour and place, the means of its points."""
    voxels: Tensor
    """[M, 4] int64, (scan, x, y, z)."""
    point_to_voxel: Tensor
    """[N] int64."""
    superpoints: Tensor
    """[N] int64, numbered over all scans."""
    superpoint_starts: list[int]
    """Where each scan's superpoints begin, then how many there are."""
    point_starts: list[int]
    """The same of points."""
    references: list[Reference]
    """B descriptions; in training, only phrases that have points."""
    scene_of_sentence: list[int]
    """[B]"""
    phrases: list[Phrase]
    """P, those of all descriptions."""
    sentence_of_phrase: list[int]
    """[P]"""
    targets: list[Tensor]
    """For each phrase [S] float, 1 at superpoints of which more than half belongs to it."""
    point_targets: list[Tensor]
    """For each phrase [N] bool, the points of its scan that belong to it."""

    @property
    def query_of_phrase(self) -> list[int]:
        """P of them."""
        return [phrase.query for phrase in self.phrases]

    def to(self, device: torch.device | str) -> Batch:
        """The batch on another device."""
        moved = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                moved[field.name] = value.to(device, non_blocking=True)
        lists = {
            name: [one.to(device) for one in getattr(self, name)]
            for name in ("targets", "point_targets")
        }
        return replace(self, **moved, **lists)


@dataclass(frozen=True)
class Item:
    """A scan with some of its descriptions."""

    scene_id: str
    references: tuple[Reference, ...]


class Batches(Dataset[Batch]):
    """The batches of one epoch, in order.

    In training, scans and descriptions are shuffled by (seed, epoch), and what is random in a batch
    depends on (seed, epoch, its place) alone.
    """

    def __init__(
        self,
        references: Sequence[Reference],
        folder: Path,
        options: DataConfig,
        seed: int = 0,
        epoch: int | None = None,
        first: int = 0,
    ) -> None:
        """Groups descriptions by scan.

        Args:
            references: The descriptions.
            folder: Of prepared scans; they lie in its subfolders ``train`` and ``val``.
            options: Sizes and augmentation.
            seed: Of everything random.
            epoch: Which; None for evaluation, where nothing is random.
            first: How many batches to leave out.

        Raises:
            InputError: A scan has not been prepared.
        """
        self.options, self.seed, self.epoch, self.first = options, seed, epoch, first
        self.paths = find_clouds(folder, {reference.scene_id for reference in references})
        rng = None if epoch is None else np.random.default_rng((seed, epoch))
        items = group(references, options.max_sentences, rng)
        if rng is not None:
            items = [items[index] for index in rng.permutation(len(items))]
        size = options.scenes_per_batch if epoch is not None else 1
        self.items = [items[start : start + size] for start in range(0, len(items), size)]

    def __len__(self) -> int:
        """How many batches are left."""
        return max(0, len(self.items) - self.first)

    def __getitem__(self, index: int) -> Batch:
        """Loads, augments and voxelises the scans of a batch."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        index += self.first
        rng = None
        if self.epoch is not None:
            rng = np.random.default_rng((self.seed, self.epoch, index))
        clouds = [load_cloud(self.paths[item.scene_id]) for item in self.items[index]]
        asked = [item.references for item in self.items[index]]
        return make_batch(clouds, asked, self.options, rng)

    def loader(self) -> DataLoader:
        """Reads ahead in ``options.workers`` processes."""
        workers = min(self.options.workers, len(self))
        return DataLoader(self, batch_size=None, num_workers=workers)


def find_clouds(folder: Path, scene_ids: set[str]) -> dict[str, Path]:
    """Where each prepared scan lies.

    Raises:
        InputError: One is nowhere.
    """
    found = {}
    for scene_id in sorted(scene_ids):
        paths = [folder / split / f"{scene_id}{SUFFIX}" for split in ("train", "val")]
        existing = [path for path in paths if path.is_file()]
        if not existing:
            raise InputError(
                f"{folder}: neither train/ nor val/ holds {scene_id}{SUFFIX}; "
                "run scripts/prepare_scannet.py"
            )
        found[scene_id] = existing[0]
    return found


def group(
    references: Sequence[Reference], size: int, rng: np.random.Generator | None = None
) -> list[Item]:
    """Descriptions by scan, at most ``size`` at a time, each once; shuffled by an rng."""
    by_scene: dict[str, list[Reference]] = {}
    for reference in references:
        by_scene.setdefault(reference.scene_id, []).append(reference)
    items = []
    for scene_id, own in sorted(by_scene.items()):
        if rng is not None:
            own = [own[index] for index in rng.permutation(len(own))]
        for start in range(0, len(own), size):
            items.append(Item(scene_id, tuple(own[start : start + size])))
    return items


def make_batch(
    clouds: Sequence[Cloud],
    asked: Sequence[Sequence[Reference]],
    options: DataConfig,
    rng: np.random.Generator | None = None,
) -> Batch:
    """Puts scans together.

    Args:
        clouds: The scans.
        asked: The descriptions of each.
        options: Sizes and augmentation.
        rng: For training: changes the clouds, and leaves out what names no point.
    """
    points, colors, coords = [], [], []
    clouds = [crop(cloud, options.max_points, rng) if rng else cloud for cloud in clouds]
    for cloud in clouds:
        places, xyz, rgb = cloud.xyz, cloud.xyz, cloud.rgb
        if rng is not None:
            places, xyz, rgb = augment(xyz, rgb, options.augment, rng)
        coords.append(((places - places.amin(dim=0)) * options.voxels_per_metre).floor().long())
        points.append(xyz)
        colors.append(rgb)
    sizes = [len(cloud) for cloud in clouds]
    scene = torch.arange(len(clouds)).repeat_interleave(torch.tensor(sizes))
    voxels, point_to_voxel = voxelize(torch.cat(coords), scene)
    features = torch.cat([torch.cat(colors), torch.cat(points)], dim=1)
    starts = list(itertools.accumulate((c.num_superpoints for c in clouds), initial=0))
    superpoints = [c.superpoints + start for c, start in zip(clouds, starts, strict=False)]
    references, scene_of_sentence = [], []
    phrases, sentence_of_phrase, targets, point_targets = [], [], [], []
    for index, (cloud, own) in enumerate(zip(clouds, asked, strict=True)):
        for reference in own:
            masks = [belonging(cloud, phrase) for phrase in reference.phrases]
            kept = [row for row, mask in enumerate(masks) if rng is None or mask.any()]
            if not kept:
                continue
            phrases += [reference.phrases[row] for row in kept]
            sentence_of_phrase += [len(references)] * len(kept)
            point_targets += [masks[row] for row in kept]
            targets += [majority(cloud, masks[row]) for row in kept]
            references.append(reference)
            scene_of_sentence.append(index)
    return Batch(
        features=segment_reduce(features, point_to_voxel, len(voxels), "mean"),
        voxels=voxels,
        point_to_voxel=point_to_voxel,
        superpoints=torch.cat(superpoints),
        superpoint_starts=starts,
        point_starts=list(itertools.accumulate(sizes, initial=0)),
        references=references,
        scene_of_sentence=scene_of_sentence,
        phrases=phrases,
        sentence_of_phrase=sentence_of_phrase,
        targets=targets,
        point_targets=point_targets,
    )


def belonging(cloud: Cloud, phrase: Phrase) -> Tensor:  # [N] bool
    """The points of a phrase's objects."""
    return torch.isin(cloud.instances, torch.tensor(phrase.object_ids, dtype=torch.int64))


def majority(cloud: Cloud, mask: Tensor) -> Tensor:  # [N] -> [S]
    """1 at superpoints of which more than half is in the mask."""
    share = segment_reduce(mask[:, None].float(), cloud.superpoints, cloud.num_superpoints, "mean")
    return (share[:, 0] > 0.5).float()


def crop(cloud: Cloud, largest: int, rng: np.random.Generator) -> Cloud:
    """The ``largest`` points nearest, from above, to a random one."""
    if len(cloud) <= largest:
        return cloud
    centre = cloud.xyz[int(rng.integers(len(cloud))), :2]
    distance = (cloud.xyz[:, :2] - centre).square().sum(dim=1)
    kept = torch.zeros(len(cloud), dtype=torch.bool)
    kept[distance.argsort(dim=0, stable=True)[:largest]] = True
    return cloud.select(kept)
