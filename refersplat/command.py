"""What the three programs share: their options, and the folder that a run owns."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path

from refer3d.native import backend
from refer3d.runs.config import check_ranges, differences, load_yaml, parse, save_yaml
from refer3d.runs.errors import InputError
from refersplat.config import Config
from refersplat.language.matching import PRIOR
from refersplat.splats.checkpoints import load_gaussians
from refersplat.splats.gaussians import Gaussians

log = logging.getLogger(__name__)

OTHER_MODEL = (
    "These are refersplat's options; for detailbase's: --config configs/detailbase/detailrefer.yaml"
    " --help"
)
RESOLVED = "config.yaml"
"""The options of the run, in its folder."""
TIMINGS = "timings.json"

RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, 2**32 - 1),
    "data.image_cache_gb": (0, math.inf),
    "rgb.iterations": (1, math.inf),
    "rgb.sh_degree": (0, 3),
    "rgb.percent_dense": (0, math.inf),
    "rgb.lambda_dssim": (0, 1),
    "rgb.densify_every": (1, math.inf),
    "rgb.opacity_reset_every": (1, math.inf),
    "rgb.max_gaussians": (-1, math.inf),
    "rgb.random_points": (1, math.inf),
    "rgb.checkpoint_every": (1, math.inf),
    "train.iterations": (1, math.inf),
    "train.sentences_per_step": (1, math.inf),
    "train.contrastive_weight": (0, math.inf),
    "train.keep_aside": (0, math.inf),
    "train.stages": (1, 2),
    "train.threshold": (-1, 1),
    "train.cache_gb": (-1, math.inf),
    "train.checkpoint_every": (1, math.inf),
    "match.refine_steps": (0, math.inf),
    "render.frames": (2, math.inf),
}
"""Least and greatest value of options; learning rates are at least 0. None may be infinite."""

CHANGEABLE = (
    *(
        "model_path",
        "resume",
        "device",
        "deterministic",
        "data.image_cache_gb",
        "rgb.checkpoint_every",
    ),
    *("text.cache", "train.threshold", "train.cache_gb", "train.checkpoint_every"),
    *("render.split", "render.views", "render.sentence", "render.orbit", "render.frames"),
)
"""Options that may differ on --resume: they do not change what is computed, only where, how much of
it is kept, and what is drawn of it."""
ASKABLE = (
    *(name for name in CHANGEABLE if not name.startswith("render.")),
    *("text.encoder", "data.scene", "data.images", "data.masks", "data.resolution"),
)
"""Options of which eval.py takes another value than train.py had; the others were used up by the
training, or draw pictures. render.py takes all those of ``render``, too."""


def read_options(argv: Sequence[str], program: str, description: str) -> Config:
    """The options of a program; all but train.py start from those of the run in ``-m``.

    Raises:
        InputError: A file or a value is wrong.
    """
    is_training = program == "train.py"
    resolved = None if is_training and "--resume" not in argv else RESOLVED
    config = parse(
        Config,
        argv,
        program=program,
        description=description if program == "render.py" else f"{description}\n\n{OTHER_MODEL}",
        resolved=resolved,
        may_be_absent=is_training,
    )
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, scene=_absolute(config.data.scene)),
        rgb=dataclasses.replace(
            config.rgb, start_checkpoint=_checkpoint(config.rgb.start_checkpoint)
        ),
    )
    check(config)
    if not is_training:
        check_askable(config, is_drawing=program == "render.py")
    try:
        backend("refersplat")
    except (ValueError, ImportError) as error:
        raise InputError(str(error)) from error
    return config


def check(config: Config) -> None:
    """Looks at the numbers before any work is done.

    Raises:
        InputError: One is out of its range, or a folder is not given.
    """
    if not config.model_path:
        raise InputError("-m: expected the folder of the run, got nothing; add -m output/NAME")
    if not config.data.scene:
        raise InputError("-s: expected the folder of a scene, got nothing; add -s data/SCENE")
    if Path(config.model_path).exists() and not Path(config.model_path).is_dir():
        raise InputError(f"-m: expected a folder, got the file {config.model_path}; name another")
    rates = [
        f"{section}.{field.name}"
        for section in ("rgb", "train")
        for field in dataclasses.fields(getattr(config, section))
        if "_lr" in field.name
    ]
    check_ranges(config, {**dict.fromkeys(rates, (0, math.inf)), **RANGES})
    if -1 < config.train.threshold < 0:
        raise InputError(
            f"--threshold: expected 0 to 1, or -1 for the one that training chose, got "
            f"{config.train.threshold}; change it"
        )
    if config.train.keep_aside == 1:
        raise InputError(
            "--train.keep_aside: 1 keeps every training view aside, so none is left to learn from; "
            "give 0 or at least 2"
        )
    if config.match.groups and not any(getattr(config.match, name) for name in PRIOR):
        raise InputError(
            "--match: without any of " + ", ".join(PRIOR) + " no group can be chosen; leave one "
            "on, or let the field answer alone by --match.no_groups"
        )


def check_askable(config: Config, is_drawing: bool) -> None:
    """Refuses options that would only be recorded, or score what the run was trained on.

    Raises:
        InputError: One differs from what the run in ``-m`` was trained with.
    """
    path = Path(config.model_path, RESOLVED)
    if path.is_file():
        trained = load_yaml(path, Config)
        for name in differences(config, trained):
            if name not in ASKABLE and not (is_drawing and name.startswith("render.")):
                was, now = (attrgetter(name)(c) for c in (trained, config))
                raise InputError(
                    f"--{name}: the run in {config.model_path} has {was!r}, which {now!r} cannot "
                    "change any more; leave it out, or train into another folder"
                )


def claim_folder(config: Config) -> None:
    """Makes the folder the run's own and writes the options there.

    A folder belongs to one run: nothing in it is overwritten by another.

    Raises:
        InputError: It holds a run that is not to be gone on with, or one with other options.
    """
    out = Path(config.model_path)
    path = out / RESOLVED
    if path.exists():
        if not config.resume:
            raise InputError(
                f"-m: {out} holds a run already; go on with it by --resume, name another folder, "
                "or delete it"
            )
        before = load_yaml(path, Config)
        if differing := [n for n in differences(config, before) if n not in CHANGEABLE]:
            name = differing[0]
            was, now = (attrgetter(name)(c) for c in (before, config))
            message = f"--resume: the run in {out} has {name} {was!r}, now it is {now!r}; "
            message += "leave the option out, or name another folder"
            has_gaussians = not any(n.startswith(("data.", "rgb.", "seed")) for n in differing)
            if has_gaussians and (cloud := newest_cloud(out)):
                message += f" and reuse the Gaussians: --start_checkpoint {cloud}"
            raise InputError(message)
    kept = dataclasses.replace(config, resume=False, model_path=_absolute(config.model_path))
    save_yaml(kept, path)  # is found from any folder


def newest_cloud(out: Path) -> Path | None:
    """The point cloud of the most iterations in a run's folder, ours or Inria's."""
    clouds = {
        int(number): path
        for path in out.glob("point_cloud/iteration_*/point_cloud.ply")
        if (number := path.parent.name.removeprefix("iteration_")).isdigit()
    }
    return clouds[max(clouds)] if clouds else None


def trained_gaussians(out: Path) -> Gaussians:
    """The Gaussians of a run.

    Raises:
        InputError: There are none yet, or their file is broken.
    """
    path = newest_cloud(out)
    if path is None:
        raise InputError(
            f"{out}/point_cloud: holds no iteration_*/point_cloud.ply, so the training has not "
            "come to its end; go on with train.py --resume"
        )
    return load_gaussians(path)


def _checkpoint(path: str) -> str:
    """A run's folder means its newest cloud."""
    cloud = newest_cloud(Path(path).expanduser()) if path else None
    return _absolute(str(cloud or path))


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute()) if path else path
