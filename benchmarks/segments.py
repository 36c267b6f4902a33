"""CPU time of reductions of rows by segment: python benchmarks/segments.py [--json FILE]."""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from machine import describe, save, seconds
from torch import Tensor

from detailbase.ops import segment_reduce

CASES = {
    "points to voxels": (500_000, 200_000, 6),
    "points to superpoints": (200_000, 1_500, 32),
    "features to superpoints": (100_000, 1_000, 256),
    "the same, shuffled": (100_000, 1_000, 256),
}
"""Rows, segments, channels."""


def rows_of(name: str) -> tuple[Tensor, Tensor, int]:
    """Values [N, C], segments [N] in the order of a scan or in none, and how many there are."""
    count, segments, channels = CASES[name]
    rng = torch.Generator().manual_seed(0)
    values = torch.randn(count, channels, generator=rng)
    index = torch.randint(0, segments, (count,), generator=rng)
    return values, index if "shuffled" in name else index.sort().values, segments


def by_torch(values: Tensor, index: Tensor, count: int, reduce: str) -> Tensor:
    """The same by PyTorch's ``scatter_reduce``."""
    at = index[:, None].expand_as(values)
    name = {"max": "amax"}.get(reduce, reduce)
    return values.new_zeros(count, values.shape[1]).scatter_reduce(0, at, values, name)


def train(reduce: Any, values: Tensor, *rest: Any) -> None:
    """Forward and backward."""
    reduce(values.detach().requires_grad_(), *rest).sum().backward()


def main() -> None:
    """Prints the table and writes it where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    machine = describe()
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    titles = ("ours", "torch", "training", "torch")
    print(f"{'milliseconds':30}" + "".join(f"{title:>10}" for title in titles))
    rows = []
    for name in CASES:
        for kind in ("sum", "max"):
            given = (*rows_of(name), kind)
            calls = [
                *(partial(op, *given) for op in (segment_reduce, by_torch)),
                *(partial(train, op, *given) for op in (segment_reduce, by_torch)),
            ]
            times = [1000 * seconds(call, repeats=5, clock=time.process_time) for call in calls]
            rows.append({"case": name, "reduce": kind, "milliseconds": times})
            print(f"{name:25}{kind:5}" + "".join(f"{time:>10.1f}" for time in times))
    save(args.json, {**machine, "rows": rows})


if __name__ == "__main__":
    main()
