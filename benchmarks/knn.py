"""Times exact nearest neighbours: python benchmarks/knn.py [--json FILE] [--points 1000000]."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from machine import describe, save, seconds
from torch import Tensor

from refersplat.ops.knn import knn


def clouds(count: int) -> dict[str, Tensor]:
    """Point clouds [N, 3] of different density."""
    rng = torch.Generator().manual_seed(42)
    normal = torch.randn(count, 3, generator=rng)
    surface = normal / normal.norm(dim=1, keepdim=True)
    clustered = normal.clone()
    clustered[: count // 2] *= 1e-4
    clustered[-1] = 1e6
    return {
        "uniform": torch.rand(count, 3, generator=rng),
        "sphere": surface,
        "half in a cluster, one outlier": clustered,
        "duplicates": torch.zeros(count, 3),
    }


def main() -> None:
    """Prints the table and writes it where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    machine = describe()
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    print(f"{'cloud':32}{'points':>10}{'queries':>12}{'k':>4}{'seconds':>10}")
    rows = []
    for name, points in clouds(args.points).items():
        shuffled = points[torch.randperm(len(points), generator=torch.Generator().manual_seed(1))]
        cases = [("themselves", points, 3), ("shuffled", shuffled, 3), ("themselves", points, 16)]
        for asked, queries, k in cases if name == "uniform" else cases[:1]:
            row = {
                "cloud": name,
                "points": len(points),
                "queries": asked,
                "k": k,
                "seconds": seconds(
                    lambda queries=queries, points=points, k=k: knn(queries, points, k)
                ),
            }
            rows.append(row)
            print(f"{name:32}{len(points):10}{asked:>12}{k:4}{row['seconds']:10.3f}")
    save(args.json, {**machine, "rows": rows})


if __name__ == "__main__":
    main()
