"""Results of runs as JSON, with versions, machine, time and memory."""

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

import psutil
import torch

from refer3d.runs.files import atomic_write
from refer3d.runs.ranks import rank
from refer3d.runs.records import read_json
from refer3d.runs.states import Number, check

STAGES = {
    ...: {"seconds": Number(float, 0), "peak_mib": Number(float, 0), "finished": bool},
}
"""Schema of ``timings.json``."""
LIBRARIES = ("refer3d", "torch", "numpy", "transformers")


def provenance(backend: str) -> dict[str, Any]:
    """Describes the software and machine behind a result.

    Args:
        backend: Implementation of the ops, from :func:`refer3d.native.backend`.
    """
    return {
        "versions": {"python": platform.python_version()} | {n: _version(n) for n in LIBRARIES},
        "git_commit": git_commit(),
        "backend": backend,
        "machine": {"cpu": _processor(), "cores": os.cpu_count(), "system": platform.platform()},
        "threads": torch.get_num_threads(),
    }


def git_commit() -> str | None:
    """Returns the commit of this code, with ``-dirty`` if files differ from it.

    None for an installation outside the repository.
    """
    here = Path(__file__)

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git(
            "ls-files", "--error-unmatch", here.name
        )  # site-packages may lie in another's repository
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def peak_memory_mib() -> float:
    """Returns the peak memory of this process so far."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset / 2**20
    import resource  # absent on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


class Stopwatch:
    """Duration and peak memory of each stage, in a file.

    A resumed stage adds up; a repeated one starts from zero. The first of several processes writes.
    """

    def __init__(self, path: Path | str) -> None:
        """Reads the stages of ``path``, if it exists."""
        self.path = Path(path)
        self.stages: dict[str, dict[str, Any]] = {}
        if self.path.is_file():
            self.stages = check(load_results(self.path), STAGES, str(self.path), "delete it")

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times the block, also if it raises."""
        before = self.stages.get(name, {})
        if before.get("finished"):
            before = {}
        entry = self.stages[name] = {"seconds": 0.0, "peak_mib": 0.0, **before, "finished": False}
        self._save()  # a killed stage has begun, too
        start = time.perf_counter()
        try:
            yield
            entry["finished"] = True
        finally:
            entry["seconds"] = round(entry["seconds"] + time.perf_counter() - start, 3)
            entry["peak_mib"] = round(max(entry["peak_mib"], peak_memory_mib()), 1)
            self._save()

    def _save(self) -> None:
        if not rank():
            save_results(self.path, self.stages)


def save_results(path: Path | str, results: Mapping[str, Any] | Sequence[Any]) -> None:
    """Writes JSON; NaN and infinity, which JSON lacks, become null."""
    with atomic_write(path) as file:
        text = json.dumps(_plain(results), indent=2, ensure_ascii=False) + "\n"
        file.write(text.encode(errors="backslashreplace"))  # half characters, as JSON escapes them


def load_results(path: Path | str) -> dict[str, Any]:
    """Reads the results of :func:`save_results`.

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
    """The CPU's name, as far as the system tells it."""
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
