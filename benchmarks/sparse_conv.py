"""Times the sparse U-Net on a room: python benchmarks/sparse_conv.py --input FOLDER [--json FILE].

The room is a scan of the folder (in ScanNet's layout), refined: each triangle of its mesh is cut
into four, twice, and the voxel size is chosen so that there are about as many voxels as asked for.
Beside wall seconds stand CPU seconds, all threads together, which other programs on the machine
disturb less. Where spconv is installed, its layers do the same beside ours.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable
from pathlib import Path

import torch
from machine import describe, peak_mib, save
from scans import read_mesh, refined
from torch import Tensor, nn

from detailbase.model.backbone import Level, SparseUNet, build_levels, spatial_shape
from detailbase.ops import voxelize


def both_seconds(function: Callable[[], object], repeats: int = 3) -> Tensor:  # [2]
    """Wall and CPU seconds, the shortest of some runs each, after one that does not count."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter(), time.process_time()
        function()
        times.append([time.perf_counter() - start[0], time.process_time() - start[1]])
    return torch.tensor(times, dtype=torch.float64).amin(dim=0)


def room(scan: Path, wanted: int) -> tuple[Tensor, float]:
    """About ``wanted`` voxels [M, 4] of a scan, and their size in metres."""
    points, faces = read_mesh(scan)
    for _ in range(2):
        points, faces = refined(points, faces)
    batch = torch.zeros(len(points), dtype=torch.int64)
    low, high = 0.005, 0.08
    for _ in range(12):  # the voxels' number falls as they grow
        size = (low * high) ** 0.5
        voxels, _ = voxelize((points / size).floor().long(), batch)
        low, high = (size, high) if len(voxels) > wanted else (low, size)
    return voxels, size


def gflop(levels: list[Level], net: SparseUNet) -> float:
    """Products and sums of one forward pass, in 1e9."""
    total = net.input.weight.numel() / 27 * levels[0].around.num_pairs
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
    toward = torch.randn(len(voxels), 32, generator=generator)
    levels = build_levels(voxels, spatial_shape(voxels))
    net = SparseUNet()
    matrix = torch.ones(4096, 4096)
    times = {"sgemm": both_seconds(lambda: matrix @ matrix)}
    times["map"] = both_seconds(lambda: build_levels(voxels, spatial_shape(voxels)))
    times["inference_forward"] = both_seconds(evaluated(net, features, voxels, levels))
    exact = evaluated(net, features, voxels, levels)()
    torch.set_float32_matmul_precision("medium")
    times["inference_forward_bfloat16"] = both_seconds(evaluated(net, features, voxels, levels))
    rounded = evaluated(net, features, voxels, levels)()
    torch.set_float32_matmul_precision("highest")
    net.train()
    times["training_forward"] = both_seconds(lambda: net(features, voxels, levels))
    step = both_seconds(lambda: net(features, voxels, levels).backward(toward))
    times["backward"] = step - times["training_forward"]
    result = {
        **machine,
        "scan": scan.name,
        "voxel_size": round(size, 5),
        "voxels": len(voxels),
        "gflop": round(gflop(levels, net), 1),
        "bfloat16_difference": float(f"{(rounded - exact).norm() / exact.norm():.2g}"),
        "peak_mib": round(peak_mib(evaluated(net, features, voxels))),
    }
    if importlib.util.find_spec("cumm"):  # spconv's own, not refer3d-compat's
        from spconv_unet import SpconvUNet

        theirs = evaluated(SpconvUNet(), features, voxels - voxels.amin(dim=0))
        times["spconv_map_and_inference"] = both_seconds(theirs)
        result["spconv_peak_mib"] = round(peak_mib(theirs))
    for name, value in result.items():
        print(f"{name:26}{value}")
    print(f"{'':26}{'wall s':>9}{'CPU s':>9}")
    for name, (wall, cpu) in times.items():
        result[f"{name}_s"], result[f"{name}_cpu_s"] = float(wall), float(cpu)
        print(f"{name:26}{wall:9.3f}{cpu:9.3f}")
    save(args.json, result)


def evaluated(net: nn.Module, *inputs: object) -> Callable[[], Tensor]:
    """A call of a network in evaluation, without gradients."""

    @torch.no_grad()
    def run() -> Tensor:
        return net.eval()(*inputs)

    return run


if __name__ == "__main__":
    main()
