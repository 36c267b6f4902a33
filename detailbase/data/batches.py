"""Batches of scans with descriptions, the same for the same seed whatever the number of workers."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from detailbase.config import DataConfig
from detailbase.data.augmentation import augment, rescan, rotation
from detailbase.data.targets import Shares, majority
from detailbase.data.wording import absent, mirror, named_objects, reword, with_sentence
from detailbase.descriptions.references import Phrase, Reference
from detailbase.descriptions.sentences import Sentences
from detailbase.ops import segment_reduce, voxelize
from detailbase.scans.clouds import Cloud, find_clouds, load_cloud
from refer3d.runs.device import to_device
from refer3d.runs.errors import InputError


@dataclass(frozen=True)
class Batch:
    """Scans with descriptions; points, voxels and superpoints of all scans stand together."""

    features: Tensor
    """[M, 6] each voxel's colour and position, the means of its points."""
    voxels: Tensor
    """[M, 4] int64, (scan, x, y, z)."""
    point_to_voxel: Tensor
    """[N] int64."""
    superpoints: Tensor
    """[N] int64, numbered over all scans."""
    instances: Tensor
    """[N] int64, the object id of each point in its scan, or ``NONE``."""
    superpoint_starts: list[int]
    """Each scan's first superpoint, then the number of superpoints."""
    point_starts: list[int]
    """Each scan's first point, then N."""
    references: list[Reference]
    """[B] descriptions."""
    scene_of_sentence: list[int]
    """[B]."""
    phrases: list[Phrase]
    """[P] phrases of all descriptions; in training, only those that have points."""
    sentence_of_phrase: list[int]
    """[P]."""
    classes: Tensor
    """[S] int64, ScanNet's class of most of each superpoint's points, or ``NONE``."""
    objects: Tensor
    """[S] int64, the object in its scan of most of each superpoint's points, or ``NONE``."""
    superpoint_targets: Tensor
    """``targets``, one behind the other, so that a worker sends few tensors."""
    left_out: int
    """Number of phrases that training leaves out because they have no points."""

    @property
    def query_of_phrase(self) -> list[int]:
        """[P]."""
        return [phrase.query for phrase in self.phrases]

    @property
    def targets(self) -> Sequence[Tensor]:
        """For each phrase [S] float, 1 at superpoints of which more than half belongs to it."""
        starts = self.superpoint_starts
        scenes = [self.scene_of_sentence[sentence] for sentence in self.sentence_of_phrase]
        return self.superpoint_targets.split([starts[i + 1] - starts[i] for i in scenes])

    @cached_property
    def scan_superpoints(self) -> list[Tensor]:
        """For each scan [N] int64, its points' superpoints, numbered from 0."""
        split = self.superpoints.split(np.diff(self.point_starts).tolist())
        return [own - start for own, start in zip(split, self.superpoint_starts, strict=False)]

    @cached_property
    def scan_instances(self) -> Sequence[Tensor]:
        """For each scan [N] int64, its points' object ids."""
        return self.instances.split(np.diff(self.point_starts).tolist())

    @cached_property
    def point_targets(self) -> list[Tensor]:
        """For each phrase [N] bool, the points of its scan that belong to it."""
        scenes = [self.scene_of_sentence[sentence] for sentence in self.sentence_of_phrase]
        return [
            torch.isin(own := self.scan_instances[scene], own.new_tensor(phrase.object_ids))
            for phrase, scene in zip(self.phrases, scenes, strict=True)
        ]

    def inputs(self, sentences: Sentences) -> dict[str, Any]:
        """Returns the arguments of the network."""
        words, mask = sentences.of(self.references)
        names = ("features", "voxels", "point_to_voxel", "superpoints", "superpoint_starts")
        return {
            **{name: getattr(self, name) for name in names},
            **{"words": words, "mask": mask, "scene_of_sentence": self.scene_of_sentence},
        }

    def to(self, device: torch.device | str) -> Batch:
        """Copies the batch to another device."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **{name: to_device(value, device) for name, value in tensors.items()})


class Batches:
    """The batches of one epoch, in order.

    In training, every description comes once an epoch. Scans and descriptions are shuffled by
    (seed, epoch), and what is random in a batch depends on (seed, epoch, its place) alone. In
    evaluation nothing is random, and no point or phrase is left out.
    """

    def __init__(
        self,
        references: Sequence[Reference],
        folder: Path,
        options: DataConfig,
        seed: int = 0,
        epoch: int | None = None,
        first: int = 0,
        turn: float = 0.0,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        """Groups descriptions by scan.

        Args:
            references: The descriptions.
            folder: Folder of prepared scans, in its subfolders ``train`` and ``val``.
            options: Sizes and augmentation.
            seed: Seed of all random choices.
            epoch: Number of the epoch; None for evaluation, where nothing is random.
            first: Number of batches to skip.
            turn: Angle in radians that evaluation turns scans by, about the vertical.
            share: Number of a process and of all processes. In training each takes some scans of
                every batch, in evaluation some of the batches.

        Raises:
            InputError: A scan has not been prepared.
        """
        self.options, self.seed, self.epoch, self.first = options, seed, epoch, first
        self.turn, self.references, self.share = turn, list(references), share
        self.named = {} if epoch is None else named_objects(references)
        self.firsts: list[int] = []
        """In evaluation, the number of each batch's first description."""
        self.paths = find_clouds(folder, {reference.scene_id for reference in references})
        rng = None if epoch is None else np.random.default_rng((seed, epoch, 0))
        groups = group(references, options.max_sentences, rng)
        self.batches = [[one] for one in groups]
        if rng is not None:
            sizes = [self.paths[one[0].scene_id].stat().st_size for one in groups]
            batches = deal(sizes, options.scenes_per_batch, rng)
            self.batches = [[groups[index] for index in batch] for batch in batches]
        else:
            own, every = share
            firsts = itertools.accumulate((len(one) for one in groups), initial=0)
            self.firsts = list(firsts)[:-1][own::every]
            self.batches = self.batches[own::every]

    def __len__(self) -> int:
        """Returns the number of batches that are left."""
        return max(0, len(self.batches) - self.first)

    def __getitem__(self, index: int) -> Batch:
        """Loads, augments and voxelises the scans of a batch."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        index += self.first
        groups, rngs = self.batches[index], None
        if self.epoch is not None:
            rng = np.random.default_rng((self.seed, self.epoch, 1 + index))
            words = np.random.default_rng((self.seed, self.epoch, 1 + index, 0))
            groups = [self._vary(one, words) for one in groups]
            own, every = self.share
            groups, rngs = groups[own::every], rng.spawn(len(groups))[own::every]
        paths = [self.paths[one[0].scene_id] for one in groups]
        clouds = [load_cloud(path) for path in paths]
        for path, cloud in zip(paths, clouds, strict=True):
            if rngs is None and len(cloud) > self.options.max_points:
                raise InputError(
                    f"{path}: has {len(cloud)} points, more than --data.max_points "
                    f"{self.options.max_points}; all are scored, so raise it"
                )
        return make_batch(clouds, groups, self.options, rngs, self.turn)

    def _vary(self, own: list[Reference], rng: np.random.Generator) -> list[Reference]:
        """Varies the descriptions of a scan for training, and adds some of what it lacks."""
        options, scene_id = self.options.augment, own[0].scene_id
        count = rng.binomial(len(own), options.absent)
        others = (self.references[int(i)] for i in rng.integers(len(self.references), size=count))
        moved = [absent(one, scene_id, self.named) for one in others if one.scene_id != scene_id]
        varied = []
        for one in (*own, *filter(None, moved)):
            one = with_sentence(one) if self.options.whole_sentences else one
            varied.append(reword(one, self.named, rng) if rng.random() < options.reword else one)
        return varied

    def loader(self) -> Iterator[Batch]:
        """Reads ahead in ``options.workers`` processes.

        Raises:
            InputError: A prepared scan is broken.
        """
        indices = cast("Dataset[int]", range(len(self)))  # any sequence will do
        workers = min(self.options.workers, len(self))
        read = self._pack if workers else self._read
        for batch in DataLoader(indices, None, num_workers=workers, collate_fn=read):
            batch = pickle.loads(batch) if workers else batch
            if isinstance(batch, InputError):
                raise batch
            yield batch

    def _read(self, index: Any) -> Batch | InputError:
        """Reads a batch; returns errors in files, which a worker would raise with a traceback."""
        try:
            return self[index]
        except InputError as error:
            return error

    def _pack(self, index: Any) -> bytes:
        """Reads a batch as bytes, which pass through a pipe: shared memory may be too small for
        tensors, as in containers, and the reader would wait for them in vain.
        """
        return pickle.dumps(self._read(index), pickle.HIGHEST_PROTOCOL)


@contextmanager
def name_killed_workers() -> Iterator[None]:
    """Reports a killed reading process, which PyTorch raises in whatever line is running.

    Raises:
        InputError: A process was killed.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise InputError(
            "--data.workers: a process that reads scans was killed, perhaps because memory ran "
            "out; give fewer, or 0 to read in the main process; a training goes on with --resume"
        ) from error


def group(
    references: Sequence[Reference], size: int, rng: np.random.Generator | None = None
) -> list[list[Reference]]:
    """Groups descriptions by scan, at most ``size`` in a group; shuffles them if given an rng."""
    by_scene: dict[str, list[Reference]] = {}
    for reference in references:
        by_scene.setdefault(reference.scene_id, []).append(reference)
    groups = []
    for _, own in sorted(by_scene.items()):
        if rng is not None:
            own = [own[index] for index in rng.permutation(len(own))]
        groups += [own[start : start + size] for start in range(0, len(own), size)]
    return groups


def deal(sizes: Sequence[int], count: int, rng: np.random.Generator) -> list[list[int]]:
    """Deals indices to batches of at most ``count``, large ones with small ones, in random order.

    Steps then take similar time and memory, and no batch norm sees a small scan alone. Sizes are
    jittered, so that a scan is batched with others in each epoch.
    """
    jittered = np.asarray(sizes) * rng.uniform(0.7, 1.3, len(sizes))
    batches: list[list[int]] = [[] for _ in range(-(-len(sizes) // count))]
    for place, index in enumerate(np.argsort(-jittered, kind="stable")):
        row, column = divmod(place, len(batches))
        batches[-1 - column if row % 2 else column].append(int(index))
    return [batches[index] for index in rng.permutation(len(batches))]


def make_batch(
    clouds: Sequence[Cloud],
    references: Sequence[Sequence[Reference]],
    options: DataConfig,
    rngs: Sequence[np.random.Generator] | None = None,
    turn: float = 0.0,
) -> Batch:
    """Joins scans and their descriptions.

    Args:
        clouds: The scans.
        references: The descriptions of each scan.
        options: Sizes and augmentation.
        rngs: In training, for each cloud: its augmentation; phrases without points are left out.
        turn: In evaluation: angle in radians that the clouds are turned by, about the vertical.
    """
    references = list(references)
    if rngs is not None:
        clouds = [
            rescan(crop(c, options.max_points, own), options.augment, own)
            for c, own in zip(clouds, rngs, strict=True)
        ]
    coords, features = [], []
    for index, cloud in enumerate(clouds):
        bent, xyz, rgb = cloud.xyz, cloud.xyz, cloud.rgb
        if rngs is not None:
            bent, xyz, rgb, is_mirrored = augment(xyz, rgb, options.augment, rngs[index])
            if is_mirrored and options.augment.swap_sides:
                references[index] = [mirror(one) for one in references[index]]
        elif turn:
            bent = xyz = xyz @ torch.from_numpy(rotation(turn)).to(xyz)
        coords.append(((bent - bent.amin(dim=0)) * options.voxels_per_metre).floor().long())
        features.append(torch.cat([rgb, xyz], dim=1))
    sizes = [len(cloud) for cloud in clouds]
    scene = torch.arange(len(clouds)).repeat_interleave(torch.tensor(sizes))
    voxels, point_to_voxel = voxelize(torch.cat(coords), scene)
    starts = list(itertools.accumulate((c.num_superpoints for c in clouds), initial=0))
    superpoints = [c.superpoints + start for c, start in zip(clouds, starts, strict=False)]
    kept_references, scene_of_sentence, phrases, sentence_of_phrase, targets = [], [], [], [], []
    left_out = 0
    for index, (cloud, own) in enumerate(zip(clouds, references, strict=True)):
        shares = Shares(cloud)
        for reference in own:
            kept = reference.phrases
            if rngs is not None:
                # A phrase that names nothing, as Multi3DRefer's may, has an empty target.
                kept = [phrase for phrase in kept if not phrase.object_ids or shares.has(phrase)]
            left_out += len(reference.phrases) - len(kept)
            if kept:
                phrases += kept
                sentence_of_phrase += [len(kept_references)] * len(kept)
                targets += [shares.target(phrase) for phrase in kept]
                kept_references.append(reference)
                scene_of_sentence.append(index)
    return Batch(
        features=segment_reduce(torch.cat(features), point_to_voxel, len(voxels), "mean"),
        voxels=voxels,
        point_to_voxel=point_to_voxel,
        superpoints=torch.cat(superpoints),
        instances=torch.cat([cloud.instances for cloud in clouds]),
        superpoint_starts=starts,
        point_starts=list(itertools.accumulate(sizes, initial=0)),
        references=kept_references,
        scene_of_sentence=scene_of_sentence,
        phrases=phrases,
        sentence_of_phrase=sentence_of_phrase,
        classes=torch.cat([majority(cloud, cloud.semantic) for cloud in clouds]),
        objects=torch.cat([majority(cloud, cloud.instances) for cloud in clouds]),
        superpoint_targets=torch.cat(targets) if targets else torch.zeros(0),
        left_out=left_out,
    )


def crop(cloud: Cloud, largest: int, rng: np.random.Generator) -> Cloud:
    """Keeps the ``largest`` points that are nearest, seen from above, to a random one."""
    if len(cloud) <= largest:
        return cloud
    centre = cloud.xyz[int(rng.integers(len(cloud))), :2]
    distance = (cloud.xyz[:, :2] - centre).square().sum(dim=1)
    kept = torch.zeros(len(cloud), dtype=torch.bool)
    kept[distance.argsort(dim=0, stable=True)[:largest]] = True
    return cloud.select(kept)
