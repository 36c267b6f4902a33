"""Times the rasterizer on a capture of a garden: python benchmarks/rasterize.py --input garden.npz.

The input holds means3d [N, 3], viewmats [3, 4, 4], Ks [3, 3, 3], width and height. Scales are
0.02 x uniform, rotations from normals, opacities uniform, spherical harmonics of degree 3.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe, peak_mib, save, seconds
from torch import Tensor

from refersplat.cameras import Camera
from refersplat.ops import BlendMatrix, blend_matrix, project, rasterize, spherical_harmonics

SIZES = [0.5, 1.0, 1.5, 2.0]
CHANNELS = [1, 3, 16, 32]


def limits(matrix: BlendMatrix, channels: int, gflops: float) -> dict[str, float]:
    """Seconds that the blending would take if each of its vector instructions were as quick as a
    matrix product's: all cores busy, nothing waited for, tile lists for nothing.

    Instructions are counted in the compiled AVX-512 loops: for a row of 16 pixels and a Gaussian,
    and for a Gaussian and a tile (which rows it meets; the sums over the tile's pixels).
    """
    rows, groups = len(matrix.rows), len(matrix.gaussians)
    forward = rows * (34 + 2 * channels) + groups * 45
    backward = rows * (54 + 5 * channels) + groups * (45 + 9 * (6 + channels))
    rate = 1e9 * gflops / 32  # 16 lanes, a multiplication and an addition each
    return {"forward_limit_s": forward / rate, "backward_limit_s": backward / rate}


def garden(path: Path) -> tuple[dict[str, Tensor], Camera]:
    """Gaussians at the capture's points, and its first camera."""
    with np.load(path) as data:
        means = torch.from_numpy(data["means3d"]).float()
        view, lens = torch.from_numpy(data["viewmats"][0]).float(), data["Ks"][0]
        width, height = int(data["width"]), int(data["height"])
    rng = torch.Generator().manual_seed(42)
    count = len(means)
    gaussians = {
        "means": means,
        "quats": torch.randn(count, 4, generator=rng),
        "scales": 0.02 * torch.rand(count, 3, generator=rng),
        "opacities": torch.rand(count, generator=rng),
        "sh": 0.3 * torch.randn(count, 16, 3, generator=rng),
    }
    camera = Camera(
        view,
        *(float(lens[i, i]) for i in range(2)),
        *(float(lens[i, 2]) for i in range(2)),
        width,
        height,
    )
    return gaussians, camera


def measure(
    gaussians: dict[str, Tensor], camera: Camera, channels: int, gflops: float
) -> dict[str, Any]:
    """Times of one view with one number of channels."""
    means, quats, scales = (gaussians[name] for name in ("means", "quats", "scales"))

    def prepare() -> tuple:
        colors = spherical_harmonics(means, gaussians["sh"], camera.position, 3)
        return project(means, quats, scales, camera), colors

    with torch.no_grad():
        project_s = seconds(prepare, repeats=5)
        projected, colors = prepare()
        values = colors[:, torch.arange(channels) % 3].contiguous()
    splats = (projected.means2d, projected.conics, projected.depths, gaussians["opacities"])
    size = (camera.height, camera.width)
    with torch.no_grad():
        forward_s = seconds(lambda: rasterize(*splats, values, *size), repeats=5)
        matrix = blend_matrix(*splats, *size)
    inputs = [splats[0], splats[1], splats[3], values]
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    image, left = rasterize(leaves[0], leaves[1], splats[2], leaves[2], leaves[3], *size)
    grads = (torch.randn_like(image), torch.randn_like(left))

    def backward() -> object:
        return torch.autograd.grad((image, left), leaves, grads, retain_graph=True)

    return {
        "width": camera.width,
        "height": camera.height,
        "gaussians": int((projected.depths > 0.2).sum()),
        "channels": channels,
        "pairs": matrix.entries,
        "project_s": project_s,
        "forward_s": forward_s,
        "backward_s": seconds(backward, repeats=5),
        "peak_mib": peak_mib(backward),
        "inputs_outputs_mib": 2 * sum(t.nbytes for t in (*inputs, image, left)) / 2**20,
        **limits(matrix, channels, gflops),
    }


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", type=Path, required=True, help="garden.npz")
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    arguments = parser.parse_args()
    gaussians, camera = garden(arguments.input)
    result: dict[str, Any] = describe() | {"rows": []}
    print(*(f"{key}: {value}" for key, value in result.items() if key != "rows"), sep="\n")
    print(
        "limit: the blending's vector instructions at the rate of the matrix product's\n"
        "   size       C   pairs   project   forward (limit)   backward (limit)  ns/pair fwd   bwd"
        "   peak MiB (inputs and outputs)"
    )
    for scale in SIZES:
        view = camera.resized(round(camera.width * scale), round(camera.height * scale))
        for channels in CHANNELS:
            row = measure(gaussians, view, channels, result["sgemm_gflops"])
            result["rows"].append(row)
            ms = {key: 1e3 * value for key, value in row.items() if key.endswith("_s")}
            ns = [1e6 * ms[f"{way}_s"] / row["pairs"] for way in ("forward", "backward")]
            print(
                f"{row['width']:5}x{row['height']:<4} {channels:4}"
                f" {row['pairs'] / 1e6:6.1f}M {ms['project_s']:6.1f} ms"
                f" {ms['forward_s']:6.1f} ({ms['forward_limit_s']:5.1f}) ms"
                f"  {ms['backward_s']:6.1f} ({ms['backward_limit_s']:5.1f}) ms"
                f"       {ns[0]:5.2f} {ns[1]:5.2f}   {row['peak_mib']:8.0f}"
                f" ({row['inputs_outputs_mib']:.0f})",
                flush=True,
            )
    save(arguments.json, result)


if __name__ == "__main__":
    main()
