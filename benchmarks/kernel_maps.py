"""Times kernel maps and one layer: python benchmarks/kernel_maps.py --input FOLDER [--json FILE].

The voxels are a refined scan's, as in ``sparse_conv.py``. Where spconv is installed, it does the
same beside ours; torch's dense ``conv3d`` does it on the whole grid. CPU seconds, all threads
together.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from pathlib import Path

import torch
from machine import describe, save
from sparse_conv import both_seconds, room
from torch import Tensor
from torch.nn import functional

from detailbase.ops import KernelMap, kernel_map, sparse_conv, submanifold_map

CHANNELS = 32
MAPS = {
    "submanifold 3": (3, 1, True),
    "submanifold 5": (5, 1, True),
    "submanifold 7": (7, 1, True),
    "2, stride 2": (2, 2, False),
    "3, stride 2": (3, 2, False),
}
"""Kernel, stride, whether submanifold; odd kernels are padded by half of them."""


def main() -> None:
    """Prints the numbers and writes them where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--voxels", type=int, default=60_000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.manual_seed(0)
    result = describe()
    voxels, _ = room(min((args.input / "scans").iterdir()), args.voxels)
    voxels = (voxels - voxels.amin(dim=0)).int()
    shape = (voxels[:, 1:].amax(dim=0) + 1).tolist()
    features = torch.randn(len(voxels), CHANNELS)
    result |= {"voxels": len(voxels), "shape": shape}
    for name, value in result.items():
        print(f"{name:26}{value}")
    print(f"{'CPU ms':26}{'ours':>9}{'spconv':>9}{'dense':>9}")
    has_spconv = importlib.util.find_spec("cumm")  # spconv's own, not refer3d-compat's
    for name, (kernel, stride, is_submanifold) in MAPS.items():

        def build(kernel: int = kernel, stride: int = stride, flat: bool = is_submanifold):
            if flat:
                return submanifold_map(voxels, kernel)
            return kernel_map(voxels, shape, kernel, stride, kernel // 2 * (kernel % 2))[1]

        times = {"ours": cpu_ms(build)}
        layer = None
        if has_spconv:
            times["spconv"], layer = spconv_layer(voxels, shape, kernel, stride, is_submanifold)
        show(result, f"map {name}", times)
        if is_submanifold and kernel < 7:
            weight = torch.randn(kernel**3, CHANNELS, CHANNELS)
            times = layer_times(features, voxels, shape, weight, build())
            if layer is not None:
                times["forward"]["spconv"] = cpu_ms(lambda layer=layer: layer(features))
            for part, numbers in times.items():
                show(result, f"layer {kernel}, {part}", numbers)
    save(args.json, result)


def cpu_ms(function: Callable[[], object]) -> float:
    return 1000 * float(both_seconds(function)[1])


def show(result: dict[str, object], name: str, times: dict[str, float]) -> None:
    columns = (times.get(who) for who in ("ours", "spconv", "dense"))
    print(f"{name:26}" + "".join(f"{'' if t is None else f'{t:.1f}':>9}" for t in columns))
    result |= {f"{name}, {who}": round(time, 1) for who, time in times.items()}


def layer_times(
    features: Tensor,  # [M, C]
    voxels: Tensor,  # [M, 4]
    shape: list[int],
    weight: Tensor,  # [V, C, C]
    pairs: KernelMap,
) -> dict[str, dict[str, float]]:
    """CPU milliseconds of a layer whose map is built, ours and on a dense grid."""
    side = round(len(weight) ** (1 / 3))
    x, y, z = voxels[:, 1:].long().unbind(dim=1)
    grid = torch.zeros(1, CHANNELS, *shape)
    grid[0, :, x, y, z] = features.T
    kernel = weight.permute(2, 1, 0).reshape(CHANNELS, CHANNELS, side, side, side).contiguous()

    def ours() -> Tensor:
        return sparse_conv(features, weight, pairs)

    def dense() -> Tensor:
        return functional.conv3d(grid, kernel, padding=side // 2)

    # Up to 27 x 32 or 125 x 32 products of order 1; the sums are 30 to 60 large.
    torch.testing.assert_close(ours(), dense()[0, :, x, y, z].T, rtol=1e-4, atol=1e-3)
    forward = {"ours": cpu_ms(ours), "dense": cpu_ms(dense)}
    for leaf in (features, weight, grid, kernel):
        leaf.requires_grad_()
    both = {
        "ours": cpu_ms(lambda: ours().sum().backward()),
        "dense": cpu_ms(lambda: dense().sum().backward()),
    }
    for leaf in (features, weight, grid, kernel):
        leaf.requires_grad_(False)
    return {"forward": forward, "and backward": both}


def spconv_layer(
    voxels: Tensor, shape: list[int], kernel: int, stride: int, is_submanifold: bool
) -> tuple[float, Callable[[Tensor], object]]:
    """CPU milliseconds of spconv's map, and its layer with this map."""
    from spconv.pytorch.ops import ConvAlgo, get_indice_pairs

    import spconv.pytorch as spconv

    pad = kernel // 2 * (kernel % 2)
    sizes = [[number] * 3 for number in (kernel, stride, pad, 1, 0)]
    grid = (voxels, 1, shape, ConvAlgo.Native)
    time = cpu_ms(lambda: get_indice_pairs(*grid, *sizes, subm=is_submanifold))
    if not is_submanifold:
        return time, lambda features: None
    options = {"padding": pad, "bias": False, "indice_key": "key"}
    conv = spconv.SubMConv3d(CHANNELS, CHANNELS, kernel, **options).eval()
    empty = torch.zeros(len(voxels), CHANNELS)
    known = conv(spconv.SparseConvTensor(empty, voxels, shape, 1))

    @torch.no_grad()
    def run(features: Tensor) -> object:
        return conv(known.replace_feature(features))

    return time, run


if __name__ == "__main__":
    main()
