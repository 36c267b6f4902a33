"""Tables of papers: trains and scores every scene of a dataset, beside published numbers."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from refer3d.native import backend
from refer3d.runs.device import choose_device
from refer3d.runs.errors import InputError
from refer3d.runs.jobs import LOG, Job, do_all
from refer3d.runs.options import override, to_mapping
from refer3d.runs.results import provenance, save_results
from refersplat import evaluate
from refersplat.command import run_of
from refersplat.config import Config
from refersplat.data import Scene, load_scene
from refersplat.data.names import frame_number
from refersplat.data.referring import choose_dataset
from refersplat.many import is_trained, train_missing
from refersplat.metrics import mean
from refersplat.referring.state import RESULT_FILE, refuse_trained_views

log = logging.getLogger(__name__)

SCENES = ("ramen", "figurines", "teatime", "waldo_kitchen")
"""Folders of the scenes, in Ref-LERF and LERF-OVS alike."""


class Published(NamedTuple):
    """A row of a paper, in percent."""

    method: str
    source: str
    scores: tuple[float | None, ...]
    """Score of each of ``SCENES``, then their mean; None where it is not known."""


class Block(NamedTuple):
    """The part of a table with one metric."""

    title: str
    ours: Mapping[str, str]
    """Names of rows, in which ``{threshold}`` is its origin, and their metrics in
    ``results.json``."""
    published: Sequence[Published] = ()


REFERSPLAT = "He et al., ICML 2025"
LANGSPLAT = "Qin et al., CVPR 2024"
OPENGAUSSIAN = "Wu et al., NeurIPS 2024"
OPENVOXEL = "OpenVoxel, arXiv 2601.09575"
UNKNOWN = (None,) * len(SCENES)
TABLES = {
    "ref_lerf": [
        Block(
            "Ref-LERF, mIoU in %",
            {
                "refersplat, convention of the paper": "lerf_mIoU",
                "refersplat, every sentence": "mIoU",
            },
            [
                Published("Grounded SAM", REFERSPLAT, (14.1, 16.0, 16.9, 16.2, 15.8)),
                Published("LangSplat", REFERSPLAT, (12.0, 17.9, 7.6, 17.9, 13.9)),
                Published("GS-Grouping", REFERSPLAT, (27.9, 8.6, 14.8, 6.3, 14.4)),
                Published("GOI", REFERSPLAT, (27.1, 16.5, 22.9, 15.7, 20.5)),
                Published("ReferSplat", REFERSPLAT, (35.2, 25.7, 31.3, 24.4, 29.2)),
                Published("OpenVoxel", OPENVOXEL, (52.5, 43.5, 48.4, 25.1, 42.4)),
            ],
        ),
    ],
    "lerf_ovs": [
        Block(
            "LERF-OVS in 2D, mIoU in % of rendered masks",
            {
                "refersplat, threshold {threshold}": "mIoU",
                "refersplat, threshold 0.5, fixed": "mIoU_threshold_0.5",
            },
            [
                Published("LangSplat", LANGSPLAT, (51.2, 44.7, 65.1, 44.5, 51.4)),
                Published("ReferSplat", REFERSPLAT, (*UNKNOWN, 55.4)),
                Published("LangSplatV2", "Li et al., arXiv 2507.07136", (*UNKNOWN, 59.9)),
                Published("OpenVoxel", OPENVOXEL, (*UNKNOWN, 66.2)),
            ],
        ),
        Block(
            "LERF-OVS in 2D, localisation accuracy in %",
            {"refersplat": "loc_acc"},
            [Published("LangSplat", LANGSPLAT, (73.2, None, 88.1, 95.5, None))],
        ),
        Block(
            "LERF-OVS in 3D, mIoU in % of selected Gaussians, rendered alone",
            {
                "refersplat, opacity above 10/255, fixed": "3d_mIoU",
                "refersplat, opacity above 0.5, fixed": "3d_mIoU_opacity_0.5",
            },
            [
                Published("LangSplat", OPENGAUSSIAN, (None, 10.16, None, None, 9.66)),
                Published("LEGaussians", OPENGAUSSIAN, (None, 17.99, None, None, 16.21)),
                Published("OpenGaussian", OPENGAUSSIAN, (None, 39.29, None, None, 38.36)),
            ],
        ),
        Block(
            "LERF-OVS in 3D, % of queries with an IoU of at least 0.25",
            {"refersplat, opacity above 10/255, fixed": "3d_acc@0.25"},
        ),
    ],
}
"""The tables, by the key of their dataset."""


def report(config: Config) -> None:
    """Scores a run, or with ``--table`` all scenes of a dataset, and prints the scores."""
    if config.score.table:
        sys.stdout.write("\n".join(table_lines(make_table(config))) + "\n")
    else:
        evaluate.report(config)


def make_table(config: Config) -> dict[str, Any]:
    """Trains the scenes that are not trained, scores all, and writes ``table_<key>.json``.

    Each scene has a folder of its own, so that a stopped table goes on where it was. Every scene is
    read before the first one trains.

    Args:
        config: Options of all scenes; ``config.score.table`` has the key of the table, the folder
            of the scenes and that of the runs.

    Raises:
        InputError: No scene is there, one cannot be trained or scored, or a run has other options
            or was trained on test views.
    """
    key, data, out = config.score.table[0], *map(_absolute, config.score.table[1:])
    runs = {
        name: _run_of_scene(config, key, data / name, out / name)
        for name in SCENES
        if (data / name).is_dir()
    }
    if not runs:
        raise InputError(
            f"--table: expected a folder {' or '.join(SCENES)} in {data}, got none; name the "
            "folder of the scenes"
        )
    scenes = {name: _load(run) for name, run in runs.items()}
    for name, run in runs.items():
        remedy = "restore the split, delete that run, or name another folder of runs"
        refuse_trained_views(Path(run.model_path), scenes[name], remedy)
    folders = {name: Path(run.model_path) for name, run in runs.items()}
    jobs = [Job(out, runs[name], train_missing, out / RESULT_FILE) for name, out in folders.items()]
    for name, error in do_all(jobs).items():
        raise InputError(f"{name}: {error} (see {folders[name] / LOG})")
    rows = {name: _row(evaluate.evaluate(run), scenes[name]) for name, run in runs.items()}
    given, chosen = config.train.threshold, "of held-out views"
    if not config.train.hold_out_every:
        chosen = "0.5, none held out"
    threshold = f"{given:.2f}, given" if given >= 0 else chosen
    metrics = {metric for block in TABLES[key] for metric in block.ours.values()}
    table = {
        "table": key,
        "scenes": rows,
        "threshold": threshold,
        "missing": {name: f"{data / name}: no such folder" for name in SCENES if name not in runs},
        "mean": {m: mean([row["metrics"][m] for row in rows.values()]) for m in sorted(metrics)},
        "mean_over": list(rows),
        "published": {
            block.title: [
                {"method": row.method, "source": row.source}
                | dict(zip((*SCENES, "mean"), row.scores, strict=True))
                for row in block.published
            ]
            for block in TABLES[key]
        },
        **provenance(backend("refersplat", choose_device(config.device))),
        "config": to_mapping(config),
    }
    path = out / f"table_{key}.json"
    save_results(path, table)
    log.info("%s is written", path)
    return table


def table_lines(table: Mapping[str, Any]) -> Iterator[str]:
    """Yields the lines of a table for the terminal."""
    scenes = table["scenes"]
    is_whole = len(scenes) == len(SCENES)
    heads = [*SCENES, f"mean of {len(SCENES)}"] + ([] if is_whole else [f"mean of {len(scenes)}"])
    blocks = TABLES[table["table"]]
    ours = {name: name.format(**table) for block in blocks for name in block.ours}
    names = ["method", *ours.values(), *(row.method for b in blocks for row in b.published)]
    width = max(map(len, names))

    def line(name: str, scores: Mapping[str, float | None], source: str) -> str:
        here = [scores.get(scene) for scene in scenes]
        values = [scores.get(scene) for scene in (*SCENES, "mean")]
        if not is_whole:
            known = [value for value in here if value is not None]
            values.append(mean(known) if len(known) == len(here) else None)
        cells = (
            f"{'–' if value is None else format(value, '.1f'):>{len(head)}}"
            for head, value in zip(heads, values, strict=True)
        )
        return f"{name:<{width}}  {'  '.join(cells)}  {source}"

    for block in blocks:
        yield block.title
        yield f"{'method':<{width}}  {'  '.join(heads)}  source"
        for row in table["published"][block.title]:
            yield line(row["method"], row, f"published, {row['source']}")
        for name, metric in block.ours.items():
            scores: dict[str, float | None] = {
                scene: _percent(row["metrics"][metric]) for scene, row in scenes.items()
            }
            if is_whole:
                scores["mean"] = _percent(table["mean"][metric])
            yield line(ours[name], scores, "these runs")
        yield ""
    if not is_whole:
        yield f"mean of {len(scenes)}: {', '.join(scenes)}"
        yield f"missing: {'; '.join(table['missing'].values())}"
    published = [row for rows in table["published"].values() for row in rows]
    if any(row.get(SCENES[0]) is None and row["mean"] is not None for row in published):
        yield "A published mean without scores of the scenes may be over three of them."
    for scene, row in scenes.items():
        yield f"{scene}: threshold {row['threshold']:.2f}, {row['threshold_chosen_by']}"
        if not row["has_published_views"]:
            yield f"{scene}: scored on other views than the papers ({row['split']})"


def _percent(value: float | None) -> float | None:
    """A score in percent; None where nothing was scored, which files write as null."""
    return None if value is None or math.isnan(value) else 100 * value


def _run_of_scene(config: Config, key: str, scene: Path, out: Path) -> Config:
    """The options of one scene's run.

    Raises:
        InputError: The run was trained with other options, or for another table.
    """
    values = {"score.table": (), "data.scene": str(scene), "data.eval": True, "data.dataset": key}
    config = override(config, values | {"model_path": str(out)})
    run = run_of(config)
    if is_trained(config) and run.exists():
        if (other := choose_dataset(scene, run.config().data.dataset).key) != key:
            raise InputError(
                f"--table: expected a run for {key} in {out}, got one that was trained with "
                f"--data.dataset {other} and may have seen the test views; name another folder"
            )
        run.refuse_changes(config, "eval", "name another folder of runs")
    return config


def _load(run: Config) -> Scene:
    """Reads a scene's headers.

    Raises:
        InputError: A file is wrong, or there is nothing to train or to score.
    """
    scene = load_scene(run.data)
    for part, views in (("training", scene.train), ("test", scene.test)):
        if all(item.is_nothing for view in views for item in view.objects):
            raise InputError(
                f"{scene.path}: expected sentences and masks of {part} views, got none "
                f"({scene.split}); see docs/refersplat.md"
            )
    return scene


def _row(results: Mapping[str, Any], scene: Scene) -> dict[str, Any]:
    """The part of a run's results that stands in the table's file."""
    keys = ("metrics", "threshold", "threshold_chosen_by", "counts", "encoder")
    frames = scene.dataset.test_frames.get(scene.path.name.lower(), ())
    return {key: results[key] for key in keys} | {
        "seconds": {name: stage["seconds"] for name, stage in results["stages"].items()},
        "split": scene.split,
        "test_views": [view.name for view in scene.test],
        "has_published_views": {frame_number(v.name) for v in scene.test} == set(frames),
    }


def _absolute(path: str) -> Path:
    return Path(path).expanduser().absolute()
