"""Every option of refersplat, with its default and meaning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class DataConfig:
    """What is read."""

    scene: str = ""
    """Folder of the scene (-s)."""
    images: str = "images"
    """Folder of the images inside the scene."""
    masks: str = "gt_mask"
    """Folder of the masks inside the scene; ``mask`` is looked into second."""
    resolution: int = -1
    """Images are made this many times smaller (-r 2), or this many pixels wide where it is above 8;
    -1 keeps the size up to 1600 pixels of width."""
    eval: bool = False
    """Keep test views out of training: ``test_views``, else the scene's own list, else every 8th.
    Without it all views train."""
    test_views: tuple[str, ...] = ()
    """Names or frame numbers of the test views."""
    white_background: bool = False
    """Put images with an alpha channel on white instead of black."""
    image_cache_gb: float = 2.0
    """Memory for decoded images; others are read again when needed."""


@dataclass(frozen=True)
class RgbConfig:
    """Fitting the Gaussians to the photos (Kerbl et al. 2023)."""

    iterations: int = 7_000
    """Optimisation steps, one image each (--iterations)."""
    start_checkpoint: str = ""
    """Use these Gaussians instead of fitting: a chkpnt*.pth or a .ply (--start_checkpoint)."""
    sh_degree: int = 3
    position_lr_init: float = 1.6e-4
    position_lr_final: float = 1.6e-6
    position_lr_max_steps: int = 30_000
    feature_lr: float = 2.5e-3
    opacity_lr: float = 0.05
    scaling_lr: float = 5e-3
    rotation_lr: float = 1e-3
    percent_dense: float = 0.01
    lambda_dssim: float = 0.2
    densify_from: int = 500
    densify_until: int = 15_000
    densify_every: int = 100
    densify_gradient: float = 2e-4
    opacity_reset_every: int = 3_000
    max_gaussians: int = 0
    """Densification stops at this many; 0 sets no limit."""
    random_background: bool = False
    """Another background colour in each step, so that transparent images leave nothing behind."""
    random_points: int = 20_000
    """How many random points to start from where the scene has none."""
    checkpoint_every: int = 1_000


@dataclass(frozen=True)
class TextConfig:
    """The frozen language model."""

    encoder: str = "auto"
    """A transformers name or folder; ``auto`` is the packaged MiniLM, ``hash`` needs no model."""
    cache: str = "~/.cache/refer3d/text"
    """Folder of encoded sentences."""


@dataclass(frozen=True)
class TrainConfig:
    """Training of the referring field."""

    setting: Literal["default", "published"] = "default"
    """``published`` computes as the paper's code does, its faults included."""
    iterations: int = 3_000
    """Steps, each on one view (--train.iterations)."""
    sentences_per_step: int = 8
    """Objects of the view that a step learns from, by one sentence each."""
    feature_lr: float = 2.5e-3
    """Learning rate of the Gaussians' referring features."""
    network_lr: float = 1e-4
    """Learning rate of the networks."""
    contrastive_weight: float = 0.1
    """Weight of the Gaussian-to-sentence contrastive loss; 0 turns it off."""
    keep_aside: int = 10
    """Every so many training views, one is only used to choose the threshold of the masks; 0 keeps
    none, and the threshold is 0.5."""
    stages: int = 1
    """2 trains a second time, on the masks that the first stage renders."""
    cache_gb: float = -1.0
    """Memory for the views' blend matrices (--cache_gb); -1 takes a quarter of what is free."""
    checkpoint_every: int = 500


@dataclass(frozen=True)
class Config:
    """One run of refersplat."""

    model_path: str = ""
    """Folder that the run writes (-m)."""
    seed: int = 0
    resume: bool = False
    """Go on where a stopped run left off (--resume)."""
    device: str = "auto"
    """``cpu``, ``cuda`` or ``auto``."""
    data: DataConfig = field(default_factory=DataConfig)
    rgb: RgbConfig = field(default_factory=RgbConfig)
    text: TextConfig = field(default_factory=TextConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
