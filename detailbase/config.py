"""Every option of detailbase, with its default and meaning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from tyro.conf import arg


@dataclass(frozen=True)
class AugmentConfig:
    """How training scans are changed."""

    jitter: float = 0.1
    """Standard deviation of a random linear map's entries around the identity."""
    jitter_chance: float = 1.0
    """Probability of such a map."""
    flip: float = 0.5
    """Probability of a mirrored scan."""
    rotate: float = 1.0
    """Probability of a turn about the vertical, by any angle."""
    elastic: float = 0.5
    """Probability of bending, at two scales, by some 9 and 36 cm; published: 1."""
    color: float = 0.1
    """Standard deviation of what is added to all colours, which reach from -1 to 1."""
    color_chance: float = 1.0
    """Probability of such a shift."""


@dataclass(frozen=True)
class DataConfig:
    """What is read."""

    root: str = "data"
    """Folder of the datasets: ``scannetv2/``, ``DetailRefer/``, ``ScanRefer/``,
    ``Multi3DRefer/``."""
    prepared: str = ""
    """Folder whose ``train/`` and ``val/`` hold prepared scans; by default ``scannetv2/`` in
    ``root``, or ``root`` itself."""
    train_on: tuple[str, ...] = ("detailrefer",)
    """Datasets whose descriptions are trained on: ``detailrefer``, ``scanrefer``,
    ``multi3drefer``."""
    dataset: str = "detailrefer"
    """Dataset whose descriptions are validated and tested on."""
    split: Annotated[Literal["train", "val", "test"], arg(aliases=("--split",))] = "test"
    """What eval.py scores."""
    scenes: tuple[str, ...] = ()
    """Only scans with these names, ``scene00*`` for all that begin so; the default is all."""
    voxels_per_metre: float = 17.0
    """Voxels of 6 cm, of which a superpoint still has several; published: 50, those of 2 cm."""
    scenes_per_batch: int = 2
    """Scans in a training step."""
    max_sentences: int = 16
    """Descriptions of a scan in a training step, which share the U-Net's work; published: 8."""
    test_sentences: int = 32
    """Descriptions of a scan that are answered at once."""
    max_points: int = 2_500_000
    """Larger scans are cropped in training, and refused in evaluation."""
    superpoints: Literal["scannet", "area"] = "scannet"
    """How detailbase.predict cuts a mesh into superpoints; must be how those were cut that the
    network learned with. ``scannet`` repeats ScanNet's own program, ``area`` weighs normals by
    area."""
    workers: int = 2
    """Processes that read ahead; the result does not depend on them."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)


@dataclass(frozen=True)
class TextConfig:
    """The frozen language model."""

    encoder: str = "auto"
    """A transformers name or folder; ``auto`` is the packaged MiniLM, ``hash`` needs no model."""
    cache: str = "~/.cache/refer3d/text"
    """Folder of encoded sentences."""


@dataclass(frozen=True)
class NetworkConfig:
    """The sparse U-Net and the decoder behind it."""

    backbone: str = "unet"
    """Network that computes the features of voxels."""
    channels: tuple[int, ...] = (24, 48, 72, 96, 120)
    """Widths of the U-Net's levels; published: 32 64 96 128 160."""
    width: int = 128
    """Channels of the decoder; published: 256."""
    heads: int = 4
    """Heads of the decoder's attention; published: 8."""
    hidden: int = 512
    """Channels inside the decoder's feed-forward layers; published: 1024."""
    layers: int = 4
    """Layers of the decoder; published: 6."""
    normalize_found: bool = True
    """Normalise what words have found in the scan; the published network forgets to."""
    use_facts: bool = True
    """Tell the decoder each superpoint's mean colour, place, spread and size."""
    objects: int = 16
    """Learned dimensions of a space in which superpoints of one object come together; the decoder
    is then told what the object is as a whole. 0 as published."""
    classes: int = 20
    """Predict ScanNet's 20 classes of superpoints beside the masks, in training; 0, as published,
    turns it off."""


@dataclass(frozen=True)
class TrainConfig:
    """Optimisation."""

    epochs: Annotated[int, arg(aliases=("--epochs",))] = 80
    """Times that every description is seen; published: 50."""
    lr: float = 1e-3
    """Learning rate of AdamW; published: 1e-4, with a pretrained U-Net."""
    weight_decay: float = 5e-4
    """Weight decay of AdamW."""
    lr_drops: tuple[float, ...] = (0.52, 0.68, 0.84)
    """Shares of the epochs after which the learning rate is halved."""
    backbone_lr_scale: float = 1.0
    """The U-Net's learning rate over the others'. The published config says 0.01, but its trainer
    drops that, so 1 is what was run."""
    backbone: str = ""
    """Weights that the U-Net starts from: SPFormer's, or a checkpoint."""
    accumulate: int = 1
    """Batches that share a step of the optimizer."""
    balance: float = 0.5
    """Balance of the mask's cross-entropy: 0, as published, weighs all superpoints alike; 1 weighs
    the few inside by how many more lie outside, at most 20. Without a pretrained U-Net, masks stay
    empty for long at 0."""
    class_weight: float = 2.0
    """Weight of the cross-entropy of superpoints' classes."""
    object_weight: float = 1.0
    """Weight of the loss of which superpoints belong to one object."""
    average: float = 0.99
    """What is validated and kept is a running mean of the weights, of which each step keeps this
    much, the first steps less. 0, as published, for the weights themselves."""
    clip: float = 0.0
    """Largest norm of the gradient; 0 sets none."""
    amp: bool = True
    """Mixed precision, where there is a GPU."""
    checkpoint_every: int = 200
    """Steps between two states that --resume can go on from, beside each epoch's."""


@dataclass(frozen=True)
class Config:
    """Options of train.py and eval.py."""

    name: str = ""
    """Name of the runs' folder below exps/; the default is the config file's."""
    work_dir: str = ""
    """Folder that is written; the default is exps/<name>/<date and time>, and for eval.py that of
    the run whose checkpoint it scores."""
    resume: str = ""
    """Go on with a stopped run: the one of this last.pth, or without a file, the one in --work_dir
    or else the newest."""
    checkpoint: str = ""
    """Weights that eval.py scores; the default is best.pth in --work_dir or else in the newest run
    that has one."""
    shuffled_words: bool = False
    """In eval.py: shuffle each description's words, to see how much the score owes to them."""
    seed: int = 1999
    """Seed of weights, order and augmentation; the same seed gives the same result."""
    device: str = "auto"
    """``auto`` takes a GPU where there is one."""
    deterministic: bool = False
    """On a GPU add up in a fixed order, too, so that the same seed gives the same bits; slower. On
    a CPU it is so anyway, for one number of threads."""
    precision: Literal["highest", "high", "medium"] = "highest"
    """Precision of float32 matrix products, as PyTorch names it: ``high`` is tf32 on a GPU,
    ``medium`` bfloat16, also on processors that multiply it."""
    data: DataConfig = field(default_factory=DataConfig)
    text: TextConfig = field(default_factory=TextConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


LEARNED_DATA = ("voxels_per_metre", "superpoints")
LEARNED = ("network.", "text.encoder", *(f"data.{name}" for name in LEARNED_DATA))
"""Options that a checkpoint's weights depend on."""
