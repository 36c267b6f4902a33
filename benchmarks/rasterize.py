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
from refersplat.ops import blend_matrix, project, rasterize, spherical_harmonics

SIZES = [0.5, 1.0, 1.5, 2.0]
CHANNELS = [1, 3, 16, 32]
OPERATIONS = {"forward": 30, "backward": 62}
"""Vector instructions for a row of 16 pixels and one Gaussian without its channels, counted in the
compiled loops; each channel adds 2 forward and 5 backward."""


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


def measure(gaussians: dict[str, Tensor], camera: Camera, channels: int) -> dict[str, Any]:
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
        pairs = blend_matrix(*splats, *size).entries
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
        "pairs": pairs,
        "project_s": project_s,
        "forward_s": forward_s,
        "backward_s": seconds(backward, repeats=5),
        "peak_mib": peak_mib(backward),
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
    print("   size       C   pairs   project  forward  backward    ns/pair fwd bwd   peak MiB")
    for scale in SIZES:
        view = camera.resized(round(camera.width * scale), round(camera.height * scale))
        for channels in CHANNELS:
            row = measure(gaussians, view, channels)
            result["rows"].append(row)
            ns = [1e9 * row[f"{way}_s"] / row["pairs"] for way in ("forward", "backward")]
            print(
                f"{row['width']:5}x{row['height']:<4} {channels:4}"
                f" {row['pairs'] / 1e6:6.1f}M  {1e3 * row['project_s']:6.1f} ms"
                f" {1e3 * row['forward_s']:6.1f} ms {1e3 * row['backward_s']:6.1f} ms"
                f"       {ns[0]:5.2f} {ns[1]:5.2f}   {row['peak_mib']:8.0f}",
                flush=True,
            )
    save(arguments.json, result)


if __name__ == "__main__":
    main()
