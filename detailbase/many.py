"""Trains and scores many configs, with several settings, datasets and seeds."""

from __future__ import annotations

from pathlib import Path

from detailbase.command import BEST, LAST
from detailbase.config import Config
from detailbase.evaluate import evaluate, suffix_of
from detailbase.inference.metrics import METRICS
from detailbase.train import train
from refer3d.runs.jobs import Job, do_many
from refer3d.runs.many import Many
from refer3d.runs.options import override


def run_many(many: Many) -> None:
    """Does all runs, and prints their scores."""
    jobs = {}
    for variant, config in many.configs.items():
        folder = Path(config.work_dir)
        jobs[variant] = Job(folder, config, finish, folder / f"results{suffix_of(config)}.json")
    do_many(many, jobs, tuple(METRICS))


def finish(config: Config) -> None:
    """Trains a run as far as it is not trained, and scores it."""
    folder = Path(config.work_dir)
    has_begun = (folder / LAST).is_file()
    train(override(config, {"resume": str(folder / LAST) if has_begun else ""}))
    evaluate(override(config, {"checkpoint": str(folder / BEST), "work_dir": ""}))
