"""Trains and scores many scenes, with several settings and seeds."""

from __future__ import annotations

from pathlib import Path

from refer3d.runs.jobs import Job, do_many
from refer3d.runs.many import Many
from refer3d.runs.options import override
from refersplat.command import newest_cloud, run_of
from refersplat.config import Config
from refersplat.evaluate import RESULTS, evaluate
from refersplat.referring.state import RESULT_FILE
from refersplat.train import train

SHOWN = ("mIoU", "mIoU_training_sentences", "psnr", "psnr_fitted")


def run_many(many: Many) -> None:
    """Does all runs, and prints their scores."""
    jobs = {}
    for variant, config in many.configs.items():
        out = Path(config.model_path)
        jobs[variant] = Job(out, config, finish, out / RESULTS.format(""))
    do_many(many, jobs, SHOWN)


def finish(config: Config) -> None:
    """Trains a run as far as it is not trained, and scores it."""
    train_missing(config)
    evaluate(config)


def train_missing(config: Config) -> None:
    """Trains a run as far as it is not trained."""
    if not is_trained(config):
        train(override(config, {"resume": run_of(config).exists()}))


def is_trained(config: Config) -> bool:
    """Whether both stages of a run have ended."""
    out = Path(config.model_path)
    return newest_cloud(out) is not None and (out / RESULT_FILE).exists()
