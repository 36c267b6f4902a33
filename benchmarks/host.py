"""Host time of a step, before a GPU has computed anything: python benchmarks/host.py [--json FILE].

The CUDA path runs on the CPU with kernels that do nothing, on scenes so small that PyTorch's own
operations cost little but their call: what is left is the host's time, below which no step on a GPU
can be. For the referring stage the operations of a step of usual size are counted instead, each of
which a GPU is given by itself.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from machine import describe, save
from referring import material
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from detailbase.model.backbone import SparseUNet, build_levels, spatial_shape
from detailbase.ops import voxelize
from refer3d.native.cuda import set_kernels
from refersplat.cameras import Camera
from refersplat.config import Config, RgbConfig, TrainConfig
from refersplat.field import folded
from refersplat.ops import project, rasterize
from refersplat.referring.state import ReferringState
from refersplat.referring.train import train_step
from refersplat.rgb import train as train_rgb
from refersplat.rgb.densify import DensificationStatistics
from refersplat.rgb.optimizer import Adam
from refersplat.rgb.state import RgbState
from refersplat.splats.gaussians import Gaussians

sys.path.append(str(Path(__file__).parents[1]))
from tests.emulation import EmulatedKernels, emulation

COUNT, SIDE = 20, 32
"""Gaussians, and pixels along the image."""
MAKE_NOTHING = {"aten::" + name for name in (
    "view", "_unsafe_view", "t", "transpose.int", "permute", "expand", "slice.Tensor", "alias",
    "select.int", "unsqueeze", "squeeze.dim", "detach", "as_strided", "split.Tensor", "unbind.int",
    "split_with_sizes", "empty.memory_format", "empty_like", "new_empty", "empty_strided",
)}  # fmt: skip
"""Operations that a GPU hears nothing of."""


class NoKernels:
    """Takes the arguments of kernels, and runs none."""

    name = "none"
    has_tf32 = True

    def __init__(self) -> None:
        self.launched = 0

    def launch(
        self, file: str, kernel: str, blocks: Any, threads: int, *arguments: Any, **defines: Any
    ) -> None:
        """Does with the arguments what the way to a GPU does."""
        self.launched += 1
        tuple(sorted(defines.items()))
        for argument in arguments:
            if isinstance(argument, Tensor):
                argument.is_contiguous()
                argument.data_ptr()


class Operations(TorchDispatchMode):
    """Counts what a device would be given."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        name = function.name().removesuffix(".default")
        self.count += name not in MAKE_NOTHING
        return function(*args, **(kwargs or {}))


def milliseconds(step: Callable[[], object], repeats: int = 50) -> float:
    """The shortest mean of ten."""
    for _ in range(10):
        step()
    means = []
    for _ in range(10):
        start = time.perf_counter()
        for _ in range(repeats):
            step()
        means.append((time.perf_counter() - start) / repeats * 1e3)
    return min(means)


def gaussians() -> tuple[Gaussians, Camera]:
    """Some before a camera."""
    rng = torch.Generator().manual_seed(0)
    means, quats = torch.rand(COUNT, 3, generator=rng), torch.rand(COUNT, 4, generator=rng)
    shape = (torch.full((COUNT, 3), -3.0), quats, torch.zeros(COUNT), torch.zeros(COUNT, 16, 3))
    camera = Camera(torch.eye(4), 30.0, 30.0, SIDE / 2, SIDE / 2, SIDE, SIDE)
    return Gaussians(means, *shape), camera


def rendering() -> Callable[[], object]:
    """Projection and rasterization, with all gradients."""
    given, camera = gaussians()
    leaves = [t.detach().requires_grad_() for t in (given.means, given.quats, given.scales)]
    leaves += [given.opacities.detach().requires_grad_(), torch.rand(COUNT, 3, requires_grad=True)]
    toward = torch.rand(3, SIDE, SIDE)

    def step() -> object:
        p = project(*leaves[:3], camera)
        image, _ = rasterize(p.means2d, p.conics, p.depths, *leaves[3:], SIDE, SIDE)
        return torch.autograd.grad(image, leaves, toward)

    return step


def rgb() -> Callable[[], object]:
    """A step of the RGB stage."""
    given, camera = gaussians()
    rng = torch.Generator().manual_seed(0)
    state = RgbState(Adam.start(given), DensificationStatistics.start(given), rng, 3500)
    view = SimpleNamespace(camera=camera, background=0.0, alpha=lambda: None)
    image, config = torch.rand(3, SIDE, SIDE), RgbConfig(iterations=10**6, densify_every=10**9)
    return lambda: train_rgb.step(state, [(view, image)], config, 1.0, 10**6)


def unet(is_training: bool) -> Callable[[], object]:
    """The sparse U-Net on a few voxels, with its maps."""
    axis = torch.arange(4)
    places = torch.cartesian_prod(axis, axis, axis) * 16
    voxels = voxelize(places, torch.zeros(len(places), dtype=torch.int64))[0]
    levels = build_levels(voxels, spatial_shape(voxels))
    # Narrow, since PyTorch computes what the weights' gradients are added to.
    net = SparseUNet(channels=(8,) * 7).train(is_training)
    features = torch.randn(len(voxels), 6)

    def step() -> None:
        with torch.set_grad_enabled(is_training):
            out = net(features, voxels, levels)
        if is_training:
            out.square().mean().backward()

    return step


def map_operations() -> int:
    """Operations of the kernel maps of the U-Net's levels, with our kernels."""
    axis = torch.arange(6)
    places = torch.cartesian_prod(axis, axis, axis)
    run, launched = EmulatedKernels.launch, []

    def launch(*arguments: Any, **defines: Any) -> None:
        launched.append(arguments[2])
        with _disable_current_modes():  # what the emulation itself does is not asked of a GPU
            run(*arguments, **defines)

    with emulation(), mock.patch.object(EmulatedKernels, "launch", launch):
        voxels = voxelize(places, torch.zeros(len(places), dtype=torch.int64))[0]
        launched.clear()
        with Operations() as operations:
            build_levels(voxels, spatial_shape(voxels))
    return operations.count + len(launched)


def referring_operations(args: argparse.Namespace, sentences: int) -> int:
    """Operations of a step of the referring stage, in chunks as for a GPU."""
    with mock.patch.object(folded, "CHUNK", folded.GPU_CHUNK):
        precomputed, view = material(args, sentences)
        state = ReferringState.start(Config(), precomputed)
        chosen = [(index, index) for index in range(sentences)]
        step = lambda: train_step(state, precomputed, [(view, chosen)], TrainConfig())  # noqa: E731
        step()  # the view's matrix is there, and the optimizer's moments
        with Operations() as operations:
            step()
    return operations.count


def main() -> None:
    """Prints a table and writes it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gaussians", type=int, default=300_000)
    parser.add_argument("--words", type=int, default=15)
    parser.add_argument("--width", type=int, default=988)
    parser.add_argument("--height", type=int, default=731)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)  # of others' operations nothing would be seen
    result: dict[str, Any] = describe() | {"host": []}
    for sentences in (1, 8):
        row = {"what": f"referring step, {sentences} sentence(s)"}
        result["host"].append(row | {"operations": referring_operations(args, sentences)})
    row = {"what": "kernel maps of a batch", "operations": map_operations()}
    result["host"].append(row)
    steps = {
        "project and rasterize, forward and backward": rendering(),
        "RGB step": rgb(),
        "sparse U-Net, inference": unet(is_training=False),
        "sparse U-Net, forward and backward": unet(is_training=True),
    }
    gpu = NoKernels()
    # What no kernel has written must not be read as how much memory is needed.
    set_kernels("cpu", lambda package, device: gpu)
    with mock.patch.object(torch, "empty_like", torch.zeros_like):
        for what, step in steps.items():
            ms = milliseconds(step)
            gpu.launched = 0
            step()
            result["host"].append({"what": what, "ms": ms, "kernels": gpu.launched})
    for row in result["host"]:
        cells = (f"{v:.3f} {k}" if isinstance(v, float) else f"{v} {k}" for k, v in row.items())
        print("  ".join(cells).replace(" what", ""))
    save(args.json, result)


if __name__ == "__main__":
    main()
