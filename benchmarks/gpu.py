"""Times everything that a GPU does: python benchmarks/gpu.py --input garden.npz [--json FILE].

Rows of the rasterizer stand beside gsplat's, and the sparse U-Net's beside spconv's, where these
are installed. ``--scene DIR`` adds the RGB training of 7 000 and 30 000 steps. A limit is what the
card's own rates allow: each input and output moved once at the rate of a copy, or the pixels'
arithmetic at the rate of an exact matrix product, whichever takes longer.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from machine import describe, save, seconds
from rasterize import garden
from referring import WAYS, gaussians_before_a_camera, material
from torch import Tensor

from detailbase.model.backbone import SparseUNet, build_levels, spatial_shape
from detailbase.ops import voxelize
from refer3d.native import backend
from refersplat.cameras import Camera
from refersplat.config import Config, DataConfig, RgbConfig, TrainConfig
from refersplat.data import load_scene
from refersplat.ops import blend_matrix, project, rasterize
from refersplat.referring.state import Precomputed, ReferringState
from refersplat.referring.supervision import BlendCache
from refersplat.referring.train import train_step
from refersplat.rgb.fit import evaluate_rgb
from refersplat.rgb.train import train
from refersplat.splats.render import render

SCALES = [1.0, 2.0, 4.0]
CHANNELS = [3, 16, 32]
FORWARD_FLOPS, BACKWARD_FLOPS = (20, 2), (40, 6)
"""Operations for a pixel and a Gaussian on it: beside the channels, and for each."""


class Clock:
    """Times and peak memory on one device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.is_gpu = device.type == "cuda"

    def ms(self, function: Callable[[], object], repeats: int = 20) -> float:
        """The shortest of some runs in milliseconds, by the GPU's own clock."""
        if not self.is_gpu:
            return 1e3 * seconds(function, 1)
        for _ in range(3):
            function()
        marks = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
        for start, end in marks:
            start.record()
            function()
            end.record()
        torch.cuda.synchronize(self.device)
        return min(start.elapsed_time(end) for start, end in marks)

    def peak_mib(self, function: Callable[[], object]) -> float:
        """Memory a call takes beyond what was held before; NaN without a GPU."""
        if not self.is_gpu:
            return float("nan")
        torch.cuda.synchronize(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        function()
        torch.cuda.synchronize(self.device)
        return (torch.cuda.max_memory_allocated(self.device) - before) / 2**20

    def rates(self, size: int) -> dict[str, float]:
        """Bytes and operations of a second that the card reaches."""
        matrix = torch.ones(size, size, device=self.device)
        target = torch.empty_like(matrix)
        copy, product = self.ms(lambda: target.copy_(matrix)), self.ms(lambda: matrix @ matrix)
        return {
            "gpu_copy_gb_s": 2 * matrix.nbytes / copy / 1e6,
            "gpu_gflops": 2 * size**3 / product / 1e6,
        }


def measured(clock: Clock, function: Callable[[], object], prefix: str = "") -> dict[str, Any]:
    """Time and memory of a call; what went wrong, where another library cannot run here."""
    try:
        cells = {"ms": clock.ms(function), "peak_mib": clock.peak_mib(function)}
    except Exception as error:  # no compiler for its kernels, for example
        cells = {"failed": f"{type(error).__name__}: {str(error).partition(chr(10))[0][:100]}"}
    return {f"{prefix}{name}": value for name, value in cells.items()}


def rendering(
    clock: Clock, splats: dict[str, Tensor], camera: Camera, channels: int, rates: dict[str, float]
) -> dict[str, Any]:
    """Projection and blending of one view, forward alone and with all gradients."""
    names = ("means", "quats", "scales", "opacities")
    leaves = [splats[name].clone().requires_grad_() for name in names]
    rng = torch.Generator().manual_seed(0)
    values = torch.rand(len(leaves[0]), channels, generator=rng).to(clock.device).requires_grad_()
    size = (camera.height, camera.width)

    def ours() -> Tensor:
        means, quats, scales, opacities = leaves
        p = project(means, quats, scales, camera)
        return rasterize(p.means2d, p.conics, p.depths, opacities, values, *size)[0]

    lens = torch.tensor(
        [[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]], device=clock.device
    )

    def theirs() -> Tensor:
        from gsplat import rasterization

        views = (camera.world_to_camera[None], lens[None], camera.width, camera.height)
        return rasterization(*leaves, values, *views, packed=False)[0]

    toward = torch.rand(channels, *size, generator=rng).to(clock.device)

    def step(forward: Callable[[], Tensor], toward: Tensor) -> object:
        return torch.autograd.grad(forward(), [*leaves, values], toward)

    with torch.no_grad():
        p = project(*leaves[:3], camera)
        pairs = blend_matrix(p.means2d, p.conics, p.depths, leaves[3], *size).entries
        row: dict[str, Any] = {
            **{"width": camera.width, "height": camera.height, "channels": channels},
            **{"pairs": pairs, "forward_ms": clock.ms(ours)},
        }
    row["step_ms"] = clock.ms(lambda: step(ours, toward))
    row["peak_mib"] = clock.peak_mib(lambda: step(ours, toward))
    torch.use_deterministic_algorithms(True)
    row["deterministic_step_ms"] = clock.ms(lambda: step(ours, toward))
    torch.use_deterministic_algorithms(False)
    moved = sum(t.nbytes for t in (*leaves, values, toward))
    for name, costs in (
        ("forward", [FORWARD_FLOPS]),
        ("step", [FORWARD_FLOPS, FORWARD_FLOPS, BACKWARD_FLOPS]),
    ):
        flops = pairs * sum(fixed + each * channels for fixed, each in costs)
        bytes_ms = moved * len(costs) / rates["gpu_copy_gb_s"] / 1e6
        row[f"{name}_limit_ms"] = max(bytes_ms, flops / rates["gpu_gflops"] / 1e6)
    if clock.is_gpu and importlib.util.find_spec("gsplat"):
        moved_toward = toward.permute(1, 2, 0)[None].contiguous()
        with torch.no_grad():
            row |= measured(clock, theirs, "gsplat_forward_")
        row |= measured(clock, lambda: step(theirs, moved_toward), "gsplat_step_")
    return row


def referring(clock: Clock, args: Namespace) -> list[dict[str, Any]]:
    """A step of the referring stage, and a sentence's answer in one view."""
    rows = []
    for sentences in sorted(set(WAYS.values())):
        given, view = material(args, sentences)
        gaussians = given.blends.gaussians.to(clock.device)
        text = given.text.to(clock.device)
        precomputed = Precomputed(gaussians.means, text, BlendCache(gaussians))
        state = ReferringState.start(Config(), precomputed)
        chosen = [(index, index) for index in range(sentences)]

        def step(s: Any = state, f: Any = precomputed, v: Any = view, c: Any = chosen) -> object:
            return train_step(s, f, [(v, c)], TrainConfig())

        row = {"what": f"referring step, {sentences} sentence(s)", "ms": clock.ms(step)}
        rows.append(row | {"peak_mib": clock.peak_mib(step)})

    camera = Camera(torch.eye(4), 1080.0, 1080.0, 720.0, 540.0, 1440, 1080).to(clock.device)
    gaussians = gaussians_before_a_camera(args.gaussians).to(clock.device)
    with torch.no_grad():
        p = project(gaussians.means, gaussians.quats, gaussians.scales, camera)
        splats = (p.means2d, p.conics, p.depths, gaussians.opacities)
        matrix = blend_matrix(*splats, camera.height, camera.width)

        def answer() -> Tensor:
            return state.field.respond(state.features, gaussians.means, text[[0]])[0]

        response = answer()[:, None].contiguous()
        ways = {
            "a sentence's responses": answer,
            "their picture, frozen view": lambda: matrix.blend(response) > 0,
            "their picture, new view": lambda: render(
                gaussians, camera, features=response, sh_degree=0
            ),
        }
        for name, function in ways.items():
            ms = clock.ms(function)
            rows.append({"what": f"{name}, 1440 x 1080", "ms": ms, "per_second": 1e3 / ms})
    return rows


def room(side: int) -> Tensor:  # [M, 4]
    """Voxels of a floor, four walls and some boxes on the floor."""
    rng = torch.Generator().manual_seed(0)
    boxes = [((0, 0, 0), (side, side, side // 2))]
    for _ in range(12):
        low = torch.randint(0, side * 3 // 4, (2,), generator=rng).tolist()
        size = torch.randint(side // 16, side // 4, (3,), generator=rng).tolist()
        boxes.append(((*low, 0), size))
    shells = []
    for low, size in boxes:
        places = torch.cartesian_prod(*(torch.arange(length) for length in size))
        is_shell = ((places == 0) | (places == torch.tensor(size) - 1)).any(dim=1)
        shells.append(places[is_shell] + torch.tensor(low))
    coords = torch.cat(shells)
    return voxelize(coords, torch.zeros(len(coords), dtype=torch.int64))[0]


def unet(clock: Clock, side: int) -> list[dict[str, Any]]:
    """The sparse U-Net: its maps, its inference, and a step, in three precisions."""
    voxels = room(side).to(clock.device)
    rng = torch.Generator().manual_seed(0)
    features = torch.randn(len(voxels), 6, generator=rng).to(clock.device)
    shape = spatial_shape(voxels)
    levels = build_levels(voxels, shape)
    about = {"voxels": len(voxels)}
    rows = [about | {"what": "maps", "ms": clock.ms(lambda: build_levels(voxels, shape))}]
    nets: dict[str, Callable[[], Tensor]] = {}
    net = SparseUNet().to(clock.device)
    nets["ours"] = lambda: net(features, voxels, levels)
    modules = {"ours": net}
    if clock.is_gpu and importlib.util.find_spec("spconv"):
        from spconv_unet import SpconvUNet

        modules["spconv"] = SpconvUNet().to(clock.device)
        # Under autocast it takes float16 whatever it is told.
        nets["spconv, with maps, float16 for bfloat16"] = lambda: modules["spconv"](
            features, voxels
        )
    before = torch.get_float32_matmul_precision()
    for precision in ("float32", "tf32", "bfloat16") if clock.is_gpu else ("float32",):
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        if "spconv" in modules:
            from spconv import constants

            constants.SPCONV_ALLOW_TF32 = precision == "tf32"
        is_half = precision == "bfloat16"
        for name, forward in nets.items():
            module = modules[name.partition(",")[0]]

            def infer(f: Any = forward, m: Any = module, h: bool = is_half) -> None:
                m.eval()
                with torch.no_grad(), torch.autocast(clock.device.type, torch.bfloat16, h):
                    f()

            def step(f: Any = forward, m: Any = module, h: bool = is_half) -> None:
                m.train()
                with torch.autocast(clock.device.type, torch.bfloat16, h):
                    out = f()
                out.float().square().mean().backward()

            for what, function in (("inference", infer), ("step", step)):
                row = about | {"what": f"{name}: {what}, {precision}"}
                rows.append(row | measured(clock, function))
    torch.set_float32_matmul_precision(before)
    return rows


def rgb(device: torch.device, scene_folder: str, iterations: int) -> dict[str, Any]:
    """A training of the RGB stage, and what it reaches."""
    with tempfile.TemporaryDirectory() as folder:
        data, settings = DataConfig(scene=scene_folder, eval=True), RgbConfig(iterations=iterations)
        config = Config(model_path=folder, data=data, rgb=settings)
        scene = load_scene(config.data)
        start = time.perf_counter()
        gaussians = train(config, scene, device)
        row = {"what": f"RGB, {iterations} steps", "seconds": time.perf_counter() - start}
        return row | evaluate_rgb(gaussians, scene.test) | {"gaussians": gaussians.count}


def show(rows: list[dict[str, Any]]) -> None:
    """Prints rows as they come, each number with its name."""
    for row in rows:
        cells = (
            f"{name} {value:.3f}" if isinstance(value, float) else f"{name} {value}"
            for name, value in row.items()
        )
        print("  " + "   ".join(cells), flush=True)


def main() -> None:
    """Prints the tables and writes them where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", type=Path, required=True, help="garden.npz")
    parser.add_argument("--scene", help="scene to train the RGB stage on")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--gaussians", type=int, default=300_000)
    parser.add_argument("--words", type=int, default=15)
    parser.add_argument("--width", type=int, default=988)
    parser.add_argument("--height", type=int, default=731)
    parser.add_argument("--room", type=int, default=200, help="voxels along a wall")
    parser.add_argument("--scales", type=float, nargs="+", default=SCALES, help="of the garden")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py: torch sees no GPU here; nothing was measured")
    device = torch.device(args.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # events are of the current one
    clock = Clock(device)
    rates = clock.rates(8192 if clock.is_gpu else 512)
    card = torch.cuda.get_device_name(device) if clock.is_gpu else "none"
    computing = backend("refersplat", device)
    result: dict[str, Any] = describe() | {"gpu": card, "kernels": computing} | rates
    show([result])
    splats, camera = garden(args.input)
    splats, camera = {name: t.to(device) for name, t in splats.items()}, camera.to(device)
    print("rasterizer")
    result["rasterizer"] = []
    for scale in args.scales:
        view = camera.resized(round(camera.width * scale), round(camera.height * scale))
        for channels in CHANNELS:
            result["rasterizer"].append(rendering(clock, splats, view, channels, rates))
            show(result["rasterizer"][-1:])
            save(args.json, result)
    print("referring")
    result["referring"] = referring(clock, args)
    show(result["referring"])
    save(args.json, result)
    print("sparse U-Net")
    result["unet"] = unet(clock, args.room)
    show(result["unet"])
    save(args.json, result)
    if args.scene:
        result["rgb"] = [rgb(device, args.scene, iterations) for iterations in (7_000, 30_000)]
        show(result["rgb"])
        save(args.json, result)


if __name__ == "__main__":
    main()
