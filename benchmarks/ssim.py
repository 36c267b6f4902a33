"""CPU time of structural similarity: python benchmarks/ssim.py [--json FILE]."""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from machine import describe, peak_mib, save, seconds
from torch import Tensor

from refersplat.ops.ssim import C1, C2, SIGMA, WINDOW, ssim, ssim_reference


def by_conv2d(image: Tensor, target: Tensor, padding: str) -> Tensor:
    """As 3DGS code bases write it: five convolutions by the window of 11 x 11."""
    offsets = torch.arange(WINDOW) - WINDOW // 2
    weights = torch.exp(-offsets.square() / (2 * SIGMA**2))
    window = torch.outer(weights, weights) / weights.sum() ** 2
    window = window.expand(len(image), 1, WINDOW, WINDOW).contiguous()
    blur = partial(F.conv2d, weight=window, padding=padding, groups=len(image))
    x, y = image[None], target[None]
    mean_x, mean_y = blur(x), blur(y)
    variance_x, variance_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    return (luminance * (2 * covariance + C2) / (variance_x + variance_y + C2)).mean()


def train(similarity: Any, image: Tensor, *rest: Any) -> None:
    """Forward and backward."""
    similarity(image.detach().requires_grad_(), *rest).backward()


def main() -> None:
    """Prints the table and writes it where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    machine = describe()
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    print(f"{'image':12}{'padding':9}{'':24}{'ms':>8}{'training':>10}{'MiB':>8}")
    rng, rows = torch.Generator().manual_seed(0), []
    for height, width in ((240, 320), (720, 960)):
        images = [torch.rand(3, height, width, generator=rng) for _ in range(2)]
        for padding in ("same", "valid"):
            for name, op in (
                ("ours", ssim),
                ("ours in plain PyTorch", ssim_reference),
                ("conv2d, 11 x 11", by_conv2d),
            ):
                given = (*images, padding)
                times = [
                    1000 * seconds(call, repeats=9, clock=time.process_time)
                    for call in (partial(op, *given), partial(train, op, *given))
                ]
                row = {
                    "size": [height, width],
                    "padding": padding,
                    "by": name,
                    "milliseconds": times,
                    "training_mib": peak_mib(partial(train, op, *given)),
                }
                rows.append(row)
                numbers = f"{times[0]:8.1f}{times[1]:10.1f}{row['training_mib']:8.0f}"
                print(f"{width:4} x {height:<5}{padding:9}{name:24}{numbers}")
    save(args.json, {**machine, "rows": rows})


if __name__ == "__main__":
    main()
