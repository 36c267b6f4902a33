"""Kills a training at random moments and compares its end with an undisturbed one.

python benchmarks/kills.py --kills 50 -- -s data/demo/tabletop -m {out} --rgb.iterations 300
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

TIMES = ("seconds",)
"""Fields of states that are no part of the result."""


def train(options: list[str], out: Path, seconds: float | None = None) -> int:
    """Trains into a folder; kills the process after some seconds. Returns its exit status."""
    words = [word.format(out=out) for word in options]
    begun = (out / "config.yaml").exists()
    command = [sys.executable, "train.py", *words, *["--resume"] * begun]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            _, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            _, errors = process.communicate()
        if process.returncode > 0:
            raise SystemExit(f"{' '.join(command)}: ended with {process.returncode}: {errors}")
    return process.returncode


def values(state: Any, name: str = "") -> dict[str, Any]:
    """Flattens a state to tensors and plain values by name."""
    if isinstance(state, dict | list | tuple):
        items = state.items() if isinstance(state, dict) else enumerate(state)
        parts = (values(v, f"{name}.{k}") for k, v in items if k not in TIMES)
        return {key: value for part in parts for key, value in part.items()}
    return {name: state}


def differences(one: Path, other: Path) -> list[str]:
    """Names what differs between the states of two folders."""
    names = sorted(path.name for path in one.glob("*.pt*"))
    wrong = [] if names else [f"{one}: no states"]
    for name in names:
        mine, theirs = (
            values(torch.load(folder / name, weights_only=True)) for folder in (one, other)
        )
        for key in mine.keys() | theirs.keys():
            a, b = mine.get(key), theirs.get(key)
            is_same = a.equal(b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a == b
            wrong += [] if is_same else [f"{name}{key}"]
    return wrong


def main() -> None:
    """Prints the number of kills, and what differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("options", nargs="+", help="of train.py; {out} stands for the folder")
    args = parser.parse_args()
    rng, kills, runs = random.Random(args.seed), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        train(args.options, Path(folder, "whole"))
        duration = time.perf_counter() - start
        while kills < args.kills:
            runs += 1
            out = Path(folder, f"killed{runs}")
            while train(args.options, out, rng.uniform(0, duration)):
                kills += 1
            drafts = [str(path) for path in out.rglob(".*.tmp")]
            if wrong := differences(Path(folder, "whole"), out) + drafts:
                raise SystemExit(f"after {kills} kills differ: {', '.join(wrong[:5])}")
            print(f"{runs} runs, {kills} kills, same bits", flush=True)


if __name__ == "__main__":
    main()
