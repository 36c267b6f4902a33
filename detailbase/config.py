"""Every option of detailbase, with its default, bounds and meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from tyro.conf import arg

from refer3d.runs.options import Bounds, Changeable, options

FIXED = Changeable()
"""The weights depend on it."""
ANYWHERE = Changeable("train", "eval")
"""Changes where and how a run computes and what it stores, not its results."""
IN_EVAL = Changeable("eval")
NUM_CLASSES = 20
"""Classes of ScanNet's benchmark."""
UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001}
"""Length of each unit in metres."""
UPS = {
    "z": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "-z": ((1, 0, 0), (0, -1, 0), (0, 0, -1)),
    "y": ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
    "-y": ((1, 0, 0), (0, 0, 1), (0, -1, 0)),
    "x": ((0, 0, -1), (0, 1, 0), (1, 0, 0)),
    "-x": ((0, 0, 1), (0, 1, 0), (-1, 0, 0)),
}
"""Rotations that turn each axis up, as rows."""


@dataclass(frozen=True)
class AugmentConfig:
    """Augmentation of training scans."""

    jitter: Annotated[float, Bounds(0, 1)] = 0.1
    """Standard deviation of a random linear map's entries around the identity."""
    jitter_chance: Annotated[float, Bounds(0, 1)] = 1.0
    """Probability of a random linear map."""
    flip: Annotated[float, Bounds(0, 1)] = 0.5
    """Probability of a mirror image."""
    swap_sides: bool = True
    """Swap left and right in descriptions of mirror images; the published code leaves them."""
    rotate: Annotated[float, Bounds(0, 1)] = 1.0
    """Probability of a rotation about the vertical, by any angle."""
    elastic: Annotated[float, Bounds(0, 1)] = 0.5
    """Probability of elastic distortion, at scales of 9 and 36 cm; published: 1."""
    color: Annotated[float, Bounds(0, 2)] = 0.1
    """Standard deviation of a shift of all colours, which range from -1 to 1."""
    color_chance: Annotated[float, Bounds(0, 1)] = 1.0
    """Probability of a colour shift."""
    noise: Annotated[float, Bounds(0, 1)] = 0.0
    """Largest standard deviation of random displacements of points, in metres."""
    thin: Annotated[float, Bounds(0, 0.99)] = 0.0
    """Largest share of points that are left out at random."""
    holes: Annotated[float, Bounds(0, 0.9)] = 0.0
    """Largest share of points that are left out in patches."""
    resegment: Annotated[float, Bounds(0, 1)] = 0.0
    """Probability of other superpoints: those that predict cuts from the changed points."""
    reword: Annotated[float, Bounds(0, 1)] = 0.0
    """Probability of another wording: a phrase of the description alone, a request, no articles,
    another end."""
    absent: Annotated[float, Bounds(0, 1)] = 0.0
    """Number of descriptions of other scans, over those of a scan, that are added as ones that mean
    nothing there."""


@dataclass(frozen=True)
class DataConfig:
    """Datasets, scans and batches."""

    root: Annotated[str, ANYWHERE] = "data"
    """Folder of the datasets: ``scannetv2/``, ``DetailRefer/``, ``ScanRefer/``,
    ``Multi3DRefer/``."""
    prepared: Annotated[str, ANYWHERE] = ""
    """Folder with ``train/`` and ``val/`` of prepared scans; the default is ``scannetv2/`` in
    ``root``, or ``root`` itself."""
    train_on: tuple[str, ...] = ("detailrefer",)
    """Datasets to train on: ``detailrefer``, ``scanrefer``, ``multi3drefer``, ``described``."""
    dataset: str = "detailrefer"
    """Dataset to validate and test on."""
    split: Annotated[Literal["train", "val", "test"], arg(aliases=("--split",)), ANYWHERE] = "test"
    """Split that eval.py scores."""
    scenes: tuple[str, ...] = ()
    """Scans to use, with ``*`` as in ``scene00*``; the default is all."""
    voxels_per_metre: Annotated[float, Bounds(1, 1000), FIXED] = 17.0
    """Resolution of the voxel grid, 6 cm by default; published: 50 (2 cm)."""
    scenes_per_batch: Annotated[int, Bounds(1)] = 2
    """Scans in a training step."""
    max_sentences: Annotated[int, Bounds(1)] = 16
    """Descriptions per scan in a training step; they share the U-Net's work. Published: 8."""
    test_sentences: Annotated[int, Bounds(1), ANYWHERE] = 32
    """Descriptions per scan in an evaluation step."""
    whole_sentences: bool = False
    """Train DetailRefer's sentences, too, as descriptions of their object, as ScanRefer's are."""
    turns: Annotated[int, Bounds(1, 64), ANYWHERE] = 1
    """Evaluate each scan so often, turned about the vertical, and average; it takes so many times
    as long."""
    max_points: Annotated[int, Bounds(1000)] = 2_500_000
    """Points of a scan; training crops larger ones, evaluation refuses them."""
    superpoints: Annotated[Literal["points", "scannet", "area"], FIXED] = "points"
    """Superpoints of ``detailbase predict``: ``points`` are cut from points alone and depend least
    on the scan's mesh, order, noise and density; ``scannet`` repeats ScanNet's segmentator on whole
    meshes, ``area`` weights normals by area."""
    workers: Annotated[int, Bounds(0), ANYWHERE] = 2
    """Processes that load data; the result does not depend on them."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def check(self) -> None:
        """Requires a dataset to train on."""
        if not self.train_on:
            raise ValueError("train_on: expected at least one dataset, got none; name one")


@dataclass(frozen=True)
class TextConfig:
    """The frozen language model."""

    encoder: Annotated[str, FIXED] = "auto"
    """A transformers name or folder; ``auto`` is the packaged MiniLM, ``hash`` needs no model."""
    cache: Annotated[str, ANYWHERE] = "~/.cache/refer3d/text"
    """Folder of encoded sentences."""


@dataclass(frozen=True)
class NetworkConfig:
    """The sparse U-Net and the decoder behind it."""

    backbone: str = "unet"
    """Network that computes the features of voxels."""
    channels: Annotated[tuple[int, ...], Bounds(1)] = (24, 48, 72, 96, 120)
    """Widths of the U-Net's levels; published: 32 64 96 128 160."""
    width: Annotated[int, Bounds(1)] = 128
    """Channels of the decoder; published: 256."""
    heads: Annotated[int, Bounds(1)] = 4
    """Attention heads of the decoder; published: 8."""
    hidden: Annotated[int, Bounds(1)] = 512
    """Channels inside the decoder's feed-forward layers; published: 1024."""
    layers: Annotated[int, Bounds(1)] = 4
    """Layers of the decoder; published: 6."""
    cross_attn_norm: bool = True
    """Normalise the output of the cross-attention; the published network forgets to."""
    descriptors: bool = True
    """Give the decoder each superpoint's mean colour, position, extent and size."""
    objects: Annotated[int, Bounds(0)] = 16
    """Dimensions of the instance embedding, in which superpoints of one object lie together; the
    decoder then sees descriptors of the whole object. 0, as published, turns it off."""
    classes: Annotated[int, Bounds(NUM_CLASSES, also=0)] = NUM_CLASSES
    """Classes of superpoints that training predicts beside the masks; 0, as published, turns it
    off."""

    choice: bool = False
    """Choose among whole objects: none, the best, or several. Otherwise, as published, each
    superpoint decides alone."""
    relations: bool = False
    """Bias the attention, and the masks, by where objects lie as seen from those of other words."""

    def check(self) -> None:
        """Requires whole heads, a level to go down to, and the parts that others need."""
        if (self.choice or self.relations) and not self.objects:
            raise ValueError(
                "objects: expected at least 1 for choice and relations, got 0; set it, or turn "
                "them off"
            )
        if self.width % self.heads:
            raise ValueError(
                f"width: expected a multiple of the {self.heads} heads, got {self.width}; "
                "change one"
            )
        if len(self.channels) < 2:
            raise ValueError(
                f"channels: expected two widths or more, got {self.channels}; name them"
            )


@dataclass(frozen=True)
class TrainConfig:
    """Optimisation."""

    epochs: Annotated[int, arg(aliases=("--epochs",)), Bounds(1)] = 80
    """Passes over the descriptions; published: 50."""
    lr: Annotated[float, Bounds(0)] = 1e-3
    """Learning rate of AdamW; published: 1e-4, with a pretrained U-Net."""
    weight_decay: Annotated[float, Bounds(0)] = 5e-4
    """Weight decay of AdamW."""
    lr_drops: Annotated[tuple[float, ...], Bounds(0, 1)] = (0.52, 0.68, 0.84)
    """Shares of the epochs after which the learning rate is halved."""
    backbone_lr_scale: Annotated[float, Bounds(0)] = 1.0
    """Learning rate of the U-Net over that of the rest. The published config says 0.01, but its
    trainer drops that, so 1 is what ran."""
    backbone: str = ""
    """Initial weights of the U-Net: SPFormer's, or a checkpoint."""
    start: str = ""
    """Initial weights of the whole network, from a checkpoint; parts that it lacks begin at random.
    """
    accumulate: Annotated[int, Bounds(1)] = 1
    """Batches per step of the optimizer."""
    pos_weight: Annotated[float, Bounds(0, 1)] = 0.5
    """Weight of superpoints inside masks in the cross-entropy: 0, as published, is that of all
    others; 1 balances the two, up to 20 times. Without a pretrained U-Net, masks stay empty for
    long at 0."""
    class_weight: Annotated[float, Bounds(0)] = 2.0
    """Weight of the cross-entropy of superpoints' classes."""
    object_weight: Annotated[float, Bounds(0)] = 1.0
    """Weight of the loss of the instance embedding."""
    choice_weight: Annotated[float, Bounds(0)] = 1.0
    """Weight of the loss of the choice among objects, if the network chooses."""
    ema_decay: Annotated[float, Bounds(0, 0.99999)] = 0.99
    """Decay of the moving average of the weights, which is validated and saved; lower in the first
    steps. 0, as published, takes the weights themselves."""
    clip: Annotated[float, Bounds(0)] = 0.0
    """Largest norm of the gradient; 0 sets none."""
    amp: bool = True
    """Mixed precision on a GPU."""
    validate_every: Annotated[int, Bounds(1), Changeable("train", "eval")] = 1
    """Epochs between two validations; the last epoch is always validated."""
    checkpoint_every: Annotated[int, Bounds(1), ANYWHERE] = 200
    """Steps between two saved states, beside one per epoch."""

    def check(self) -> None:
        """Requires drops in order."""
        drops = self.lr_drops
        if list(drops) != sorted(drops) or 0 in drops:
            raise ValueError(
                f"lr_drops: expected ascending shares of the epochs, above 0, got {drops}; sort "
                "them"
            )


@dataclass(frozen=True)
class Config:
    """Options of train.py and eval.py."""

    RENAMED: ClassVar[Mapping[str, str]] = {
        "network.normalize_found": "network.cross_attn_norm",
        "network.use_facts": "network.descriptors",
        "train.balance": "train.pos_weight",
        "train.average": "train.ema_decay",
    }

    name: Annotated[str, IN_EVAL] = ""
    """Name of the runs' folder below exps/; the default is the config file's."""
    work_dir: Annotated[str, ANYWHERE] = ""
    """Folder of the run; the default is exps/<name>/<date and time>, and for eval.py the folder of
    the checkpoint's run."""
    resume: Annotated[str, ANYWHERE] = ""
    """Resume a stopped run: that of this last.pth or, without a file, the one in --work_dir or else
    the newest."""
    checkpoint: Annotated[str, ANYWHERE] = ""
    """Weights that eval.py scores; the default is best.pth in --work_dir or else in the newest run
    that has one."""
    shuffled_words: Annotated[bool, ANYWHERE] = False
    """Shuffle the words of each description in eval.py, to measure how much the score owes to their
    order."""
    seed: Annotated[int, Bounds(0, 2**32 - 1), IN_EVAL] = 1999
    """Seed of weights, order and augmentation; the same seed gives the same result."""
    device: Annotated[str, ANYWHERE] = "auto"
    """Device of PyTorch; ``auto`` takes a GPU if there is one."""
    deterministic: Annotated[bool, ANYWHERE] = False
    """Same bits for the same seed on a GPU; slower. A CPU gives them anyway, for one number of
    threads."""
    precision: Annotated[Literal["highest", "high", "medium"], IN_EVAL] = "highest"
    """Precision of float32 matrix products, as PyTorch names it: ``high`` is tf32 on a GPU,
    ``medium`` bfloat16, also on processors that multiply it."""
    data: Annotated[DataConfig, IN_EVAL] = field(default_factory=DataConfig)
    text: TextConfig = field(default_factory=TextConfig)
    network: Annotated[NetworkConfig, FIXED] = field(default_factory=NetworkConfig)
    train: Annotated[TrainConfig, IN_EVAL] = field(default_factory=TrainConfig)


LEARNED = tuple(o.name for o in options(Config) if not o.can_change_in("eval"))
"""Options that a checkpoint's weights depend on."""
