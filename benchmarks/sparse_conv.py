"""Times the sparse U-Net on a room: python benchmarks/sparse_conv.py --input FOLDER [--json FILE].

The room is a scan of the folder (in ScanNet's layout), refined: each triangle of its mesh is cut
into four, twice, and the voxel size is chosen so that there are about as many voxels as asked for.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from machine import describe, peak_mib, save, seconds
from plyfile import PlyData
from torch import Tensor

from detailbase.model.unet import Level, SparseUNet, build_levels, spatial_shape
from detailbase.ops import voxelize


def refined_vertices(vertices: Tensor, faces: Tensor) -> Tensor:  # [N, 3], [F, 3] -> [N', 3]
    """The corners that there are when each triangle is cut into four, twice."""
    for _ in range(2):
        sides = torch.stack([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
        edges, middle = torch.unique(
            sides.sort(dim=2).values.view(-1, 2), dim=0, return_inverse=True
        )
        a, b, c = faces.T
        ab, bc, ca = len(vertices) + middle.view(3, -1)
        corners = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
        faces = torch.cat([torch.stack(corner, dim=1) for corner in corners])
        vertices = torch.cat([vertices, vertices[edges].mean(dim=1)])
    return vertices


def room(scan: Path, wanted: int) -> tuple[Tensor, float]:
    """About ``wanted`` voxels [M, 4] of a scan, and their size in metres."""
    mesh = PlyData.read(scan / f"{scan.name}_vh_clean_2.ply")
    vertices = torch.from_numpy(np.stack([mesh["vertex"][axis] for axis in "xyz"], axis=1))
    faces = torch.from_numpy(np.stack(mesh["face"]["vertex_indices"]).astype(np.int64))
    points = refined_vertices(vertices, faces)
    batch = torch.zeros(len(points), dtype=torch.int64)
    low, high = 0.005, 0.08
    for _ in range(12):  # the voxels' number falls as they grow
        size = (low * high) ** 0.5
        voxels, _ = voxelize((points / size).floor().long(), batch)
        low, high = (size, high) if len(voxels) > wanted else (low, size)
    return voxels, size


def gflop(levels: list[Level], net: SparseUNet) -> float:
    """Products and sums of one forward pass, in 1e9."""
    total = net.input_conv[0].weight.numel() / 27 * levels[0].around.num_pairs
    part = net.unet
    for level in levels:
        for name, layer in part.named_modules():
            if name.startswith("u.") or not hasattr(layer, "matrices"):
                continue
            volume, channels, width = layer.matrices().shape
            pairs = {27: level.around.num_pairs, 1: level.around.num_outputs}
            total += channels * width * pairs.get(volume, level.around.num_outputs)
        part = getattr(part, "u", None)
    return 2 * total / 1e9


def main() -> None:
    """Prints the numbers and writes them where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--scan", help="by default the first room of the folder")
    parser.add_argument("--voxels", type=int, default=235_000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    scan = args.input / "scans" / args.scan if args.scan else min((args.input / "scans").iterdir())

    machine = describe()
    voxels, size = room(scan, args.voxels)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(len(voxels), 6, generator=generator)
    levels = build_levels(voxels, spatial_shape(voxels))
    net = SparseUNet().eval()
    result = {
        **machine,
        "scan": scan.name,
        "voxel_size": round(size, 5),
        "voxels": len(voxels),
        "gflop": round(gflop(levels, net), 1),
        "map_s": seconds(lambda: build_levels(voxels, spatial_shape(voxels))),
    }
    with torch.no_grad():
        result["inference_forward_s"] = seconds(lambda: net(features, voxels, levels))
    net.train()
    toward = torch.randn(len(voxels), 32, generator=generator)
    result["training_forward_s"] = seconds(lambda: net(features, voxels, levels))
    both = seconds(lambda: net(features, voxels, levels).backward(toward))
    result["backward_s"] = both - result["training_forward_s"]
    net.eval()
    with torch.no_grad():
        result["peak_mib"] = round(peak_mib(lambda: net(features, voxels)))
    for name, value in result.items():
        print(f"{name:22}{value:.3f}" if isinstance(value, float) else f"{name:22}{value}")
    save(args.json, result)


if __name__ == "__main__":
    main()
