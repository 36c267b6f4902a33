"""Every option of refersplat, with its default and meaning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from tyro.conf import arg


@dataclass(frozen=True)
class DataConfig:
    """What is read."""

    scene: Annotated[str, arg(aliases=("-s",))] = ""
    """Folder of the scene."""
    images: str = "images"
    """Folder of the images inside the scene."""
    masks: str = "gt_mask"
    """Folder of the masks inside the scene; ``mask`` is looked into second."""
    resolution: Annotated[int, arg(aliases=("-r",))] = -1
    """Images are made this many times smaller (-r 2), or this many pixels wide where it is above 8;
    -1 keeps the size up to 1600 pixels of width."""
    eval: Annotated[bool, arg(aliases=("--eval",))] = False
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

    iterations: Annotated[int, arg(aliases=("--iterations",))] = 7_000
    """Optimisation steps, one image each."""
    start_checkpoint: Annotated[str, arg(aliases=("--start_checkpoint",))] = ""
    """Use these Gaussians instead of fitting: a chkpnt*.pth, a .ply, or a run's folder."""
    sh_degree: int = 3
    """Degree of the colours' spherical harmonics, up by one every 1000 steps."""
    position_lr_init: float = 1.6e-4
    """Learning rate of the centres at first, times the scene's extent."""
    position_lr_final: float = 1.6e-6
    """And at the last step; log-linear between the two."""
    feature_lr: float = 2.5e-3
    """Learning rate of the colours; of their direction-dependent part a twentieth."""
    opacity_lr: float = 0.05
    """Learning rate of the opacities (as logits)."""
    scaling_lr: float = 5e-3
    """Learning rate of the scales (as logarithms)."""
    rotation_lr: float = 1e-3
    """Learning rate of the rotations."""
    percent_dense: float = 0.01
    """Share of the scene's extent above which a Gaussian is split, not cloned."""
    lambda_dssim: float = 0.2
    """Weight of D-SSIM; L1 has the rest."""
    densify_from: int = 500
    """First step after which Gaussians are added and removed."""
    densify_until: float = 0.5
    """Share of the steps after which the number of Gaussians stays, and opacities are not reset."""
    densify_every: int = 100
    """Steps between two densifications."""
    densify_gradient: float = 2e-4
    """Mean view-space gradient from which a Gaussian is cloned or split."""
    opacity_reset_every: int = 3_000
    """Steps between two resets of all opacities to 0.01."""
    max_gaussians: int = -1
    """Densification stops at this many; -1 is one for each pixel of the largest photo, 0 sets no
    limit."""
    random_background: bool = False
    """Another background colour in each step, so that transparent images leave nothing behind."""
    random_points: int = 20_000
    """How many random points to start from where the scene has none."""
    checkpoint_every: int = 1_000
    """Steps between two states that --resume can go on from."""


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
    """``published`` contrasts Gaussian 0, counts padding as words and answers by the field alone,
    as the paper's code does; the file configs/refersplat/published.yaml sets the rest."""
    iterations: int = 600
    """Steps, each on one view (--train.iterations)."""
    sentences_per_step: int = 8
    """Objects of the view that a step learns from, by one sentence each."""
    feature_lr: float = 1e-2
    """Learning rate of the Gaussians' referring features."""
    network_lr: float = 1e-3
    """Learning rate of the networks."""
    contrastive_weight: float = 0.02
    """Weight of the Gaussian-to-sentence contrastive loss, the paper's (its code has 0.1); 0 turns
    it off."""
    keep_aside: int = 10
    """Every so many training views, one is only used to choose the threshold of the masks; 0 keeps
    none, and the threshold is 0.5."""
    stages: int = 1
    """2 trains the field a second time, on the masks that the first stage renders; groups keep the
    masks that were given."""
    threshold: Annotated[float, arg(aliases=("--threshold",))] = -1.0
    """Where a pixel becomes object, 0 to 1; -1 takes what the training chose on views kept aside.
    render.py and eval.py read it."""
    cache_gb: Annotated[float, arg(aliases=("--cache_gb",))] = -1.0
    """Memory for the views' blend matrices; -1 takes a quarter of what is free."""
    checkpoint_every: int = 500
    """Steps between two states that --resume can go on from."""


@dataclass(frozen=True)
class MatchConfig:
    """How a new sentence finds its group of Gaussians; every switch takes one ingredient away."""

    groups: bool = True
    """Answer with the group that a sentence means; off, with the field's response."""
    refine_steps: int = 150
    """Steps that fit the groups' memberships to the masks; 0 keeps the lifted masks."""
    nearest: bool = True
    """Count how similar a group's nearest training sentences are."""
    ridge: bool = True
    """Count a linear classifier of the sentence embeddings."""
    relation: bool = True
    """Count whether a group stands where the sentence says: next to, between, on top of."""
    color: bool = True
    """Count whether a group has the colours that the sentence names."""
    size: bool = True
    """Count whether a group is as tall, small, central as the sentence says."""
    field: bool = True
    """Count the field's response, averaged over a group."""
    apart: bool = True
    """Take sentences apart into what they say of the object and of others; off, they stay whole."""
    weigh: bool = True
    """Weigh the ingredients by training sentences that are left out; off, by prior weights."""
    reject: float = 2.0
    """A sentence gets no group but the field's response where it is less similar to every group
    than training sentences that are left out, by this many standard deviations."""


@dataclass(frozen=True)
class RenderConfig:
    """What render.py draws."""

    split: Annotated[Literal["test", "train", "all"], arg(aliases=("--split",))] = "test"
    """Which views."""
    views: Annotated[tuple[str, ...], arg(aliases=("--views",))] = ()
    """Names of views to draw instead of a split."""
    sentence: Annotated[tuple[str, ...], arg(aliases=("--sentence",))] = ()
    """Sentences to answer instead of the scene's own."""
    orbit: Annotated[bool, arg(aliases=("--orbit",))] = False
    """Make a video from a flight around the scene: one for each sentence, or of the bare scene."""
    frames: int = 120
    """Pictures of the video, 24 a second."""


@dataclass(frozen=True)
class Config:
    """One run of refersplat."""

    model_path: Annotated[str, arg(aliases=("-m",))] = ""
    """Folder that the run writes."""
    seed: int = 0
    """The same seed gives the same result."""
    resume: bool = False
    """Go on where a stopped run left off."""
    device: str = "auto"
    """``auto`` takes a GPU where there is one."""
    deterministic: bool = False
    """On a GPU add up in a fixed order, too, so that the same seed gives the same bits; slower. On
    a CPU it is so anyway, for one number of threads."""
    data: DataConfig = field(default_factory=DataConfig)
    rgb: RgbConfig = field(default_factory=RgbConfig)
    text: TextConfig = field(default_factory=TextConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    match: MatchConfig = field(default_factory=MatchConfig)
    render: RenderConfig = field(default_factory=RenderConfig)
