"""Options of the programs train, render and eval, and the folder that a run owns."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from refer3d.runs.config import parse, require_values, take_option
from refer3d.runs.errors import InputError
from refer3d.runs.folder import RunFolder, refuse_file
from refer3d.runs.many import Many, Variant, read_many
from refer3d.runs.options import Option, override
from refersplat.config import Config, DataConfig

DESCRIPTIONS = {
    "train": "Train refersplat on a scene (-s) and write the folder of the run (-m).",
    "render": "Draw answers of a run (-m) to sentences: masks, heat maps, overlays, videos.",
    "eval": "Score a run (-m) on its test views, or with --table all scenes of a dataset.",
    "many": "Train and score scenes with several settings and seeds; print one table. A stopped "
    "command goes on with what is missing.",
    "check": "Describe a scene and its faults, without training.",
}
OTHER_MODEL = "These are refersplat's options; detailbase {0} --help shows those of detailbase."


def read_options(argv: Sequence[str], program: str) -> Config:
    """Reads the options of a program; all but a new training start from those of the run in ``-m``.

    Raises:
        InputError: A file or a value is wrong.
    """
    require_values(argv, "--sentence", "--views")
    base, (folder, _) = None, take_option(argv, "-m", "--model_path", "--model-path")
    if folder and (program != "train" or "--resume" in argv):
        run = RunFolder(folder, Config)
        if not take_option(argv, "--config")[0] and (program != "train" or run.exists()):
            base = run.config()
    config = parse(
        Config,
        argv,
        program=f"refersplat {program}",
        description=f"{DESCRIPTIONS[program]}\n\n{OTHER_MODEL.format(program)}",
        base=base,
        shows=partial(_is_shown, program=program, trains=program == "train" or "--table" in argv),
    )
    if program == "eval" and config.score.table:
        given = {"-m": folder, "-s": config.data.scene}
        given |= {"--start_checkpoint": config.rgb.start_checkpoint}
        for option, value in given.items():
            if value:
                raise InputError(
                    f"{option}: expected none with --table, which names a folder for each scene, "
                    f"got {value!r}; leave it out"
                )
        return config
    if not config.model_path:
        raise InputError("-m: expected the folder of the run, got nothing; add -m output/NAME")
    if not config.data.scene:
        raise InputError("-s: expected the folder of a scene, got nothing; add -s data/SCENE")
    refuse_file("-m", config.model_path)
    start = config.rgb.start_checkpoint
    cloud = newest_cloud(Path(start).expanduser()) if start else None
    values = {"data.scene": config.data.scene, "rgb.start_checkpoint": str(cloud or start)}
    config = override(config, {name: _absolute(path) for name, path in values.items()})
    if program != "train" and (run := run_of(config)).exists():
        run.refuse_changes(config, program, "train into another folder")
    return config


def _is_shown(option: Option, program: str, trains: bool) -> bool:
    """Whether the help of a program lists an option; others have no effect there, or are fixed."""
    user = {"render": "render", "score": "eval"}.get(option.name.partition(".")[0], program)
    return user == program and (trains or option.can_change_in(program))


def read_check(argv: Sequence[str]) -> DataConfig:
    """Reads the options of ``refersplat check``."""
    parser = argparse.ArgumentParser(prog="refersplat check", description=DESCRIPTIONS["check"])
    parser.add_argument("scene", help="folder of the scene")
    parser.add_argument(
        "-r",
        "--resolution",
        type=int,
        default=-1,
        help="downscale the photos by this factor, or above 8 to this width",
    )
    parser.add_argument("--images", default="images", help="folder of the images in the scene")
    parser.add_argument("--masks", default="gt_mask", help="folder of the masks in the scene")
    parser.add_argument("--dataset", default="auto", help="format of the sentences")
    parser.add_argument("--test_views", nargs="*", default=(), help="names or frame numbers")
    options = vars(parser.parse_args(argv))
    options["test_views"] = tuple(options["test_views"])
    return DataConfig(**options, eval=True)


def read_many_options(argv: Sequence[str]) -> Many:
    """Reads the options of ``refersplat many``.

    Raises:
        InputError: A value is wrong, or a folder holds a run with other options.
    """

    def read(variant: Variant, folder: str, words: list[str]) -> Config:
        config = read_options(["-s", variant.source, "-m", folder, "--eval", *words], "train")
        if run_of(config).exists():
            run_of(config).refuse_changes(config, "train", "name another --out")
        return config

    return read_many(argv, "refersplat many", DESCRIPTIONS["many"], "SCENE", read)


def run_of(config: Config) -> RunFolder[Config]:
    """Returns the folder of the run."""
    return RunFolder(config.model_path, Config)


@contextmanager
def claim_folder(config: Config) -> Iterator[None]:
    """Makes the folder the run's own, alone for as long, and writes the options there.

    Raises:
        InputError: It holds another run, or one with other options.
    """
    run = run_of(config)
    with run.held("-m"):
        _claim(run, config)
        yield


def _claim(run: RunFolder[Config], config: Config) -> None:
    if not config.resume:
        run.refuse_second_run("-m")
    elif run.exists():
        remedy, changes = "name another folder", run.changes(config, "train")
        is_same_scene = not any(name.startswith(("data.", "rgb.", "seed")) for name in changes)
        if is_same_scene and (cloud := newest_cloud(run.path)):
            remedy += f" and reuse the Gaussians: --start_checkpoint {cloud}"
        run.refuse_changes(config, "train", remedy)
    # Absolute, to be found from any folder.
    run.claim(override(config, {"resume": False, "model_path": _absolute(config.model_path)}))


def newest_cloud(folder: Path) -> Path | None:
    """Finds the point cloud of the most iterations in a run's folder, ours or Inria's."""
    clouds = {
        int(number): path
        for path in folder.glob("point_cloud/iteration_*/point_cloud.ply")
        if (number := path.parent.name.removeprefix("iteration_")).isdigit()
    }
    return clouds[max(clouds)] if clouds else None


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute()) if path else path
