"""Superpoints against a folder of scans: python benchmarks/superpoints.py --input FOLDER.

Compares the superpoints of each scan's mesh with the segments that the folder (in ScanNet's layout)
carries, and times them on the first scan, refined until it has as many vertices as asked for.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from machine import describe, save, seconds
from scans import read_mesh, read_segments, refined
from torch import Tensor

from detailbase.ops import cloud_superpoints, mesh_superpoints


def agreement(labels: Tensor, expected: Tensor) -> tuple[float, float]:  # [N], [N]
    """Shares of vertices: in the same segment to the last vertex; IoU with the best one."""
    _, labels, sizes = labels.unique(return_inverse=True, return_counts=True)
    _, expected, wanted = expected.unique(return_inverse=True, return_counts=True)
    pairs, shared = torch.stack([labels, expected]).unique(dim=1, return_counts=True)
    ious = shared / (sizes[pairs[0]] + wanted[pairs[1]] - shared)
    best = torch.zeros(len(wanted)).scatter_reduce(0, pairs[1], ious, "amax")
    return (
        float(shared[ious == 1].sum() / len(labels)),
        float((best * wanted).sum() / len(labels)),
    )


def main() -> None:
    """Prints the table and writes it where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--vertices", type=int, default=300_000)
    parser.add_argument(
        "--noise", type=float, default=5e-5, help="metres, half a file's last digit"
    )
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    scans = sorted((args.input / "scans").iterdir())

    generator = torch.Generator().manual_seed(0)
    rows = {"area": [], "scannet": [], "area, moved": []}
    for scan in scans:
        vertices, faces = read_mesh(scan)
        expected = read_segments(scan)
        area = mesh_superpoints(vertices, faces)
        scannet = mesh_superpoints(vertices, faces, rule="scannet")
        moved = vertices + args.noise * (2 * torch.rand(vertices.shape, generator=generator) - 1)
        rows["area"].append(agreement(area, expected))
        rows["scannet"].append(agreement(scannet, expected))
        rows["area, moved"].append(agreement(mesh_superpoints(moved, faces), area))
    result = {**describe(), "scans": len(scans), "noise_m": args.noise}
    print(f"{'mean over scans':24}{'identical':>12}{'best IoU':>12}")
    for name, values in rows.items():
        identical, iou = torch.tensor(values).mean(dim=0).tolist()
        against = "itself" if "moved" in name else "segs.json"
        print(f"{name + ' : ' + against:24}{identical:12.3f}{iou:12.3f}")
        result[name] = {"against": against, "identical": identical, "best_iou": iou}

    vertices, faces = read_mesh(scans[0])
    while len(vertices) < args.vertices:
        vertices, faces = refined(vertices, faces)
    result["vertices"] = len(vertices)
    result["area_s"] = seconds(lambda: mesh_superpoints(vertices, faces))
    result["scannet_s"] = seconds(lambda: mesh_superpoints(vertices, faces, rule="scannet"))
    result["cloud_s"] = seconds(lambda: cloud_superpoints(vertices))
    for name in ("sgemm_gflops", "vertices", "area_s", "scannet_s", "cloud_s"):
        print(f"{name:24}{result[name]:12.5g}")
    save(args.json, result)


if __name__ == "__main__":
    main()
