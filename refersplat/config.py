"""Every option of refersplat, with its default, bounds and meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from tyro.conf import arg

from refer3d.runs.options import Bounds, Changeable

ANYWHERE = Changeable("train", "eval", "render")
"""Changes where and how a run computes and what it stores, not its results."""
SCENE = Changeable("eval", "render")
"""Names the scene, which may have moved, or another scene to score."""
DRAWING = Changeable("train", "render")

Scorer = Literal["nearest", "ridge", "relation", "color", "size", "field"]
SCORERS: tuple[Scorer, ...] = ("nearest", "ridge", "relation", "color", "size", "field")


@dataclass(frozen=True)
class DataConfig:
    """Scene, views and images."""

    scene: Annotated[str, arg(aliases=("-s",)), ANYWHERE] = ""
    """Folder of the scene; of a resumed run, its new place if it has moved."""
    images: Annotated[str, SCENE] = "images"
    """Folder of the images inside the scene."""
    masks: Annotated[str, SCENE] = "gt_mask"
    """Folder of the masks inside the scene; ``mask`` if that is absent."""
    dataset: Annotated[str, SCENE] = "auto"
    """Format of the sentences: ``ref_lerf`` (json/), ``lerf_ovs`` (label/ beside the scene) or one
    that was added; ``auto`` detects it, Ref-LERF's first."""
    resolution: Annotated[int, arg(aliases=("-r",)), Bounds(1, also=-1), SCENE] = -1
    """Downscale images by this factor (-r 2), or above 8 to this width in pixels; -1 limits the
    width to 1600 pixels."""
    eval: Annotated[bool, arg(aliases=("--eval",))] = False
    """Hold out test views: ``test_views``, else the scene's own list, else every 8th. Without it
    all views train."""
    test_views: tuple[str, ...] = ()
    """Names or frame numbers of the test views."""
    white_background: bool = False
    """Composite images with an alpha channel on white instead of black."""
    image_cache_gb: Annotated[float, Bounds(0), ANYWHERE] = 2.0
    """Memory for decoded images, in GB; the others are decoded again at each use."""


@dataclass(frozen=True)
class RgbConfig:
    """First stage: Gaussians fitted to the photos (Kerbl et al. 2023)."""

    iterations: Annotated[int, arg(aliases=("--iterations",)), Bounds(1)] = 7_000
    """Optimisation steps."""
    views_per_step: Annotated[int, Bounds(1)] = 1
    """Views in each step, whose gradients are averaged; a new training by several processes of
    torchrun takes at least one for each of them."""
    start_checkpoint: Annotated[str, arg(aliases=("--start_checkpoint",)), Changeable("train")] = ""
    """Use these Gaussians instead of fitting: a chkpnt*.pth, a .ply, or a run's folder."""
    sh_degree: Annotated[int, Bounds(0, 3)] = 3
    """Degree of the spherical harmonics; training raises it by one every 1000 steps."""
    position_lr_init: Annotated[float, Bounds(0)] = 1.6e-4
    """Learning rate of the centres at the first step, in units of the scene's extent."""
    position_lr_final: Annotated[float, Bounds(0)] = 1.6e-6
    """Learning rate of the centres at the last step; log-linear in between."""
    feature_lr: Annotated[float, Bounds(0)] = 2.5e-3
    """Learning rate of the colours; a twentieth for the view-dependent coefficients."""
    opacity_lr: Annotated[float, Bounds(0)] = 0.05
    """Learning rate of the opacities (logits)."""
    scaling_lr: Annotated[float, Bounds(0)] = 5e-3
    """Learning rate of the scales (logarithms)."""
    rotation_lr: Annotated[float, Bounds(0)] = 1e-3
    """Learning rate of the rotations."""
    percent_dense: Annotated[float, Bounds(0)] = 0.01
    """Split Gaussians larger than this share of the scene's extent; clone smaller ones."""
    lambda_dssim: Annotated[float, Bounds(0, 1)] = 0.2
    """Weight of D-SSIM; the rest is L1's."""
    densify_from: Annotated[int, Bounds(0)] = 500
    """First step of densification."""
    densify_until: Annotated[float, Bounds(0)] = 0.5
    """Share of the steps after which densification and opacity resets end."""
    densify_every: Annotated[int, Bounds(1)] = 100
    """Steps between two densifications."""
    densify_gradient: Annotated[float, Bounds(0)] = 2e-4
    """Mean view-space gradient above which a Gaussian is cloned or split."""
    opacity_reset_every: Annotated[int, Bounds(1)] = 3_000
    """Steps between two resets of all opacities to 0.01."""
    max_gaussians: Annotated[int, Bounds(0, also=-1)] = -1
    """Largest number of Gaussians; -1 is one per pixel of the largest photo, 0 no limit."""
    random_background: bool = False
    """Train on a random background in each step, for transparent images."""
    random_points: Annotated[int, Bounds(1)] = 20_000
    """Number of random initial points for scenes without points."""
    exposure: Literal["auto", "always", "never"] = "auto"
    """Fit an affine transform of colours to each training photo; ``auto`` does where exposure or
    white balance differ."""
    refine_poses: Literal["auto", "always", "never"] = "auto"
    """Refine the poses of the training photos; ``auto`` does where they are off."""
    pose_lr: Annotated[float, Bounds(0)] = 1e-3
    """Learning rate of the poses at the first step, in radians and in units of the scene's extent;
    a hundredth at the last step, log-linear in between."""
    correct_from: Annotated[int, Bounds(0)] = 500
    """Step at which ``exposure`` and ``refine_poses`` are decided, and begin."""
    checkpoint_every: Annotated[int, Bounds(1), Changeable("train")] = 1_000
    """Steps between two saved states."""


@dataclass(frozen=True)
class TextConfig:
    """The frozen language model."""

    encoder: Annotated[str, SCENE] = "auto"
    """A transformers name or folder; ``auto`` is the packaged MiniLM, ``hash`` needs no model."""
    cache: Annotated[str, ANYWHERE] = "~/.cache/refer3d/text"
    """Folder of encoded sentences."""


@dataclass(frozen=True)
class TrainConfig:
    """Second stage: the referring field."""

    setting: Literal["default", "published"] = "default"
    """``published`` contrasts Gaussian 0, counts padding as words and answers by the field alone,
    as the paper's code does; configs/refersplat/published.yaml sets the rest."""
    iterations: Annotated[int, Bounds(1)] = 600
    """Optimisation steps (--train.iterations)."""
    views_per_step: Annotated[int, Bounds(1)] = 1
    """Views in each step. Processes of torchrun share the step's pairs of a view and a sentence, so
    that one view has work for several."""
    sentences_per_step: Annotated[int, Bounds(1)] = 8
    """Most objects of each view in a step, one sentence each."""
    feature_lr: Annotated[float, Bounds(0)] = 1e-2
    """Learning rate of the Gaussians' referring features."""
    network_lr: Annotated[float, Bounds(0)] = 1e-3
    """Learning rate of the networks."""
    contrastive_weight: Annotated[float, Bounds(0)] = 0.02
    """Weight of the Gaussian-to-sentence contrastive loss, the paper's (its code has 0.1); 0 turns
    it off."""
    hold_out_every: Annotated[int, Bounds(2, also=0)] = 10
    """Hold out every n-th training view to choose the mask threshold; 0 holds out none and takes
    0.5."""
    stages: Annotated[int, Bounds(1, 2)] = 1
    """2 trains the field again, on the masks that the first stage renders; groups keep the given
    masks."""
    threshold: Annotated[
        float, arg(aliases=("--threshold",)), Bounds(0, 1, also=-1), ANYWHERE
    ] = -1.0
    """Mask threshold in render.py and eval.py; -1 takes the one chosen on held-out views."""
    cache_gb: Annotated[float, arg(aliases=("--cache_gb",)), Bounds(0, also=-1), ANYWHERE] = -1.0
    """Memory for the views' blend matrices, in GB; -1 takes a quarter of the free memory."""
    checkpoint_every: Annotated[int, Bounds(1), Changeable("train")] = 500
    """Steps between two saved states."""


@dataclass(frozen=True)
class MatchConfig:
    """Choice of the group of Gaussians that a sentence means."""

    groups: bool = True
    """Answer with a group of Gaussians; off, with the field's response."""
    refine_steps: Annotated[int, Bounds(0)] = 150
    """Steps that fit group memberships to the masks; 0 keeps the lifted masks."""
    without: tuple[Literal[Scorer, "decomposition", "fitted_weights"], ...] = ()
    """Ablate parts: comparison with the nearest sentences, the linear classifier, relations,
    colours, sizes and ranks, sentences held out of the field's first steps, parsing of sentences,
    weights fitted to left-out training sentences (prior weights instead)."""
    reject: Annotated[float, Bounds(0)] = 2.0
    """Tolerance for sentences that may mean nothing in the scene, in log odds: smaller values
    answer fewer, 100 answers all."""

    def check(self) -> None:
        """Requires a scorer, if groups answer."""
        if self.groups and set(SCORERS) <= set(self.without):
            raise ValueError(
                f"without: expected at least one scorer left of {', '.join(SCORERS)}, got none; "
                "keep one, or let the field answer by --match.no_groups"
            )


@dataclass(frozen=True)
class RenderConfig:
    """Pictures and videos of render.py."""

    split: Annotated[Literal["test", "train", "all"], arg(aliases=("--split",))] = "test"
    """Views to draw."""
    views: Annotated[tuple[str, ...], arg(aliases=("--views",))] = ()
    """Names of views to draw instead of a split."""
    sentence: Annotated[tuple[str, ...], arg(aliases=("--sentence",))] = ()
    """Sentences to answer instead of the scene's own."""
    orbit: Annotated[bool, arg(aliases=("--orbit",))] = False
    """Make an orbit video for each sentence, or of the bare scene."""
    frames: Annotated[int, Bounds(2)] = 120
    """Frames of the video, 24 per second."""
    explain: Annotated[bool, arg(aliases=("--explain",))] = False
    """Print how each sentence was understood."""


TABLE_KEYS = ("ref_lerf", "lerf_ovs")


@dataclass(frozen=True)
class ScoreConfig:
    """Scores of eval.py."""

    questions: Annotated[str, arg(aliases=("--questions",))] = ""
    """File of questions to score instead of the test views' sentences: a JSON list with sentence,
    kind, and the categories meant in each view."""
    table: Annotated[tuple[str, ...], arg(aliases=("--table",))] = ()
    """``ref_lerf`` or ``lerf_ovs``, the folder of its scenes and one for the runs: train the scenes
    that are not trained, with any options of training, score all, and print the papers' table with
    these runs."""

    def check(self) -> None:
        """Requires the three words of a table."""
        if self.table and (len(self.table) != 3 or self.table[0] not in TABLE_KEYS):
            raise ValueError(
                f"table: expected {' or '.join(TABLE_KEYS)}, the folder of the scenes and that of "
                f"the runs, got {' '.join(self.table)}; name these three"
            )


@dataclass(frozen=True)
class Config:
    """One run of refersplat."""

    RENAMED: ClassVar[Mapping[str, str]] = {
        "train.keep_aside": "train.hold_out_every",
        **{f"match.{scorer}": f"match.without {scorer}" for scorer in SCORERS},
        "match.apart": "match.without decomposition",
        "match.weigh": "match.without fitted_weights",
    }

    model_path: Annotated[str, arg(aliases=("-m",)), ANYWHERE] = ""
    """Folder of the run."""
    seed: Annotated[int, Bounds(0, 2**32 - 1)] = 0
    """Random seed; the same seed gives the same result."""
    resume: Annotated[bool, Changeable("train")] = False
    """Resume a stopped run."""
    device: Annotated[str, ANYWHERE] = "auto"
    """Device of PyTorch; ``auto`` takes a GPU if there is one."""
    deterministic: Annotated[bool, ANYWHERE] = False
    """Same bits for the same seed on a GPU; slower. A CPU gives them anyway, for one number of
    threads."""
    data: DataConfig = field(default_factory=DataConfig)
    rgb: RgbConfig = field(default_factory=RgbConfig)
    text: TextConfig = field(default_factory=TextConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    match: MatchConfig = field(default_factory=MatchConfig)
    render: Annotated[RenderConfig, DRAWING] = field(default_factory=RenderConfig)
    score: Annotated[ScoreConfig, ANYWHERE] = field(default_factory=ScoreConfig)
