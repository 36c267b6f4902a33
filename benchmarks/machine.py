"""Times, peak memory and the machine, as every benchmark reports them."""

from __future__ import annotations

import ctypes
import json
import platform
import subprocess
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch

from refer3d.native import backend, num_threads


def seconds(
    function: Callable[[], object],
    repeats: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """The shortest of some runs, after one that does not count.

    On a busy machine, ``time.process_time`` tells more of what runs on one thread.
    """
    function()
    times = []
    for _ in range(repeats):
        start = clock()
        function()
        times.append(clock() - start)
    return min(times)


def peak_mib(function: Callable[[], object]) -> float:
    """Memory a call takes beyond what the process held before it; NaN where not on Linux."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not (status.exists() and reset.exists()):
        return float("nan")

    def read(key: str) -> float:
        line = next(x for x in status.read_text().splitlines() if x.startswith(key))
        return int(line.split()[1]) / 1024

    ctypes.CDLL(None).malloc_trim(0)  # freed memory that the process kept would hide the need
    reset.write_text("5")
    before = read("VmRSS")
    kept = function()
    peak = read("VmHWM")
    del kept
    return peak - before


def sgemm_gflops(size: int = 4096) -> float:
    """The rate of a float32 matrix product, by which machines and moments can be compared."""
    matrix = torch.ones(size, size)
    return 2 * size**3 / seconds(lambda: matrix @ matrix, repeats=2) / 1e9


def describe() -> dict[str, Any]:
    """The machine, its product rate, and the code that is measured."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    ).stdout.strip()
    return {
        "date": date.today().isoformat(),
        "commit": commit,
        "machine": platform.processor() or platform.machine(),
        "backend": backend("refersplat"),
        "threads": num_threads(),
        "torch": torch.__version__,
        "sgemm_gflops": round(sgemm_gflops(), 1),
    }


def save(path: Path | None, result: dict[str, Any]) -> None:
    """Writes ``result`` as JSON where a path is given."""
    if path is not None:
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
