"""What a result must say about its run: numbers, versions, machine, time and memory."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from refer3d.runs.files import atomic_write
from refer3d.runs.records import read_json

LIBRARIES = ("refer3d", "torch", "numpy", "transformers")


def provenance(backend: str) -> dict[str, Any]:
    """What a number depends on besides its config.

    Args:
        backend: What computed the ops.
    """
    return {
        "versions": {"python": platform.python_version()} | {n: _version(n) for n in LIBRARIES},
        "git_commit": git_commit(),
        "backend": backend,
        "machine": {"cpu": _processor(), "cores": os.cpu_count(), "system": platform.platform()},
        "threads": torch.get_num_threads(),
    }


def git_commit() -> str | None:
    """The commit of this code, with ``-dirty`` behind it where files differ from it.

    None where it runs from an installation that no repository tracks.
    """
    here = Path(__file__)

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(here.parent), *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)  # an environment may lie in another's folder
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def peak_memory_mib() -> float:
    """The most memory that this process has held so far."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return psutil.Process().memory_info().peak_wset / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


class Stopwatch:
    """Seconds that each stage took and the memory it needed, kept in a file.

    A stage that is stopped and gone on with adds up; one that is done again starts from zero.
    """

    def __init__(self, path: Path | str) -> None:
        """Goes on with what ``path`` holds, if there is such a file."""
        self.path = Path(path)
        self.stages: dict[str, dict[str, Any]] = {}
        if self.path.is_file():
            self.stages = load_results(self.path)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times the block, also when it is stopped."""
        before = self.stages.get(name, {})
        if before.get("finished"):
            before = {}
        entry = self.stages[name] = {"seconds": 0.0, "peak_mib": 0.0, **before, "finished": False}
        save_results(self.path, self.stages)  # even a killed stage has begun
        start = time.perf_counter()
        try:
            yield
            entry["finished"] = True
        finally:
            entry["seconds"] = round(entry["seconds"] + time.perf_counter() - start, 3)
            entry["peak_mib"] = round(max(entry["peak_mib"], peak_memory_mib()), 1)
            save_results(self.path, self.stages)


def save_results(path: Path | str, results: Mapping[str, Any]) -> None:
    """Writes JSON; numbers that are not finite, which JSON has not, become null."""
    with atomic_write(path) as file:
        file.write((json.dumps(_plain(results), indent=2, ensure_ascii=False) + "\n").encode())


def load_results(path: Path | str) -> dict[str, Any]:
    """Reads what :func:`save_results` wrote.

    Raises:
        InputError: The file is absent or damaged.
    """
    return read_json(path, dict, if_absent="train.py writes it", if_broken="delete it")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """The CPU's name, where the system tells it."""
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
