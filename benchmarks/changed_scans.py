"""Superpoints of a changed scan against those of the scan: python benchmarks/changed_scans.py SCAN.

Prints the adjusted Rand index of the two, point by point, the numbers of superpoints, the points
left out as stray, and seconds of CPU.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from machine import describe, save

from detailbase.scans.export import write_ply
from detailbase.scans.meshes import read_mesh
from detailbase.scans.scan import read_scan_file


def changed(
    xyz: np.ndarray, rgb: np.ndarray, rng: np.random.Generator
) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Yields a name, positions, colours, and each point's row in the scan, or -1."""
    same, cos, sin = np.arange(len(xyz)), np.cos(0.6), np.sin(0.6)
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    yield "unchanged", xyz, rgb, same
    yield "turned by 34 degrees", (xyz @ turn).astype("f4").astype("f8"), rgb, same
    order = rng.permutation(len(xyz))
    yield "rows shuffled", xyz[order], rgb[order], order
    yield "1 mm noise", xyz + rng.normal(0, 0.001, xyz.shape), rgb, same
    half = rng.choice(len(xyz), len(xyz) // 2, replace=False)
    yield "half of the points", xyz[half], rgb[half], half
    yield "every point twice", np.tile(xyz, (2, 1)), np.tile(rgb, (2, 1)), np.tile(same, 2)
    air = rng.uniform(xyz.min(axis=0), xyz.max(axis=0), (len(xyz) // 50, 3))
    source = np.append(same, np.full(len(air), -1))
    yield (
        "2 % of points in the air",
        np.append(xyz, air, 0),
        np.append(rgb, rgb[: len(air)], 0),
        source,
    )


def adjusted_rand(one: np.ndarray, other: np.ndarray) -> float:
    """The adjusted Rand index (Hubert and Arabie 1985) of two labellings [N]."""

    def pairs(labels: np.ndarray) -> float:
        counts = np.unique(labels, return_counts=True)[1].astype(float)
        return float((counts * (counts - 1) / 2).sum())

    a, b, both = pairs(one), pairs(other), pairs(one * (other.max() + 1) + other)
    chance = a * b / (len(one) * (len(one) - 1) / 2)
    return (both - chance) / ((a + b) / 2 - chance)


def main() -> None:
    """Prints the table and writes it where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scan", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    mesh, path = read_mesh(args.scan), Path(tempfile.mkdtemp(), "scan.ply")
    result = {**describe(), "scan": args.scan.name, "points": len(mesh.vertices)}
    expected = np.zeros(0, dtype=np.int64)
    for name, xyz, rgb, source in changed(mesh.vertices, mesh.colors, np.random.default_rng(0)):
        with path.open("wb") as file:
            write_ply(file, xyz, rgb)
        start = time.process_time()
        scan = read_scan_file(path)
        seconds = time.process_time() - start
        labels = np.full(len(xyz), -1)
        labels[scan.rows] = scan.cloud.superpoints.numpy()[scan.owner]
        expected = expected if len(expected) else labels
        kept = (source >= 0) & (labels >= 0)
        kept[kept] = expected[source[kept]] >= 0
        score = adjusted_rand(labels[kept], expected[source[kept]])
        count, lost = scan.cloud.num_superpoints, len(xyz) - len(scan.rows)
        print(f"{name:26}{score:8.3f}{count:6d}{lost:6d}{seconds:8.2f} s")
        result[name] = {"ari": score, "superpoints": count, "stray": lost, "seconds": seconds}
    save(args.json, result)


if __name__ == "__main__":
    main()
