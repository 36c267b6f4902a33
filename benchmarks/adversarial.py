"""Calls the ops with values, shapes and layouts that nobody means; for a build with sanitizers.

python -m benchmarks.adversarial --calls 1000

A call must return or raise an error of Python; a sanitizer ends the process, which names the call
that it began last. CONTRIBUTING.md has the commands.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from detailbase import ops as rooms
from refersplat import ops as scenes
from refersplat.ops.adam import adam_step
from refersplat.ops.ssim import ssim
from tests.refersplat.splats import camera, gaussians, splats

FLOATS = (math.nan, math.inf, -math.inf, 1e38, -1e38, 1e-42, -1.0, 0.0, 2.0**31, -(2.0**31), 1e9)
INTEGERS = (-1, 0, 1, 7, 2**31 - 1, 2**31, -(2**31), 2**32, 2**62, 2**63 - 1, -(2**63))
SCALARS = (*INTEGERS, math.nan, -1.0, 1e300, None)
ERRORS = (ValueError, TypeError, IndexError, RuntimeError, OverflowError, MemoryError)


def seeded(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def voxels(count: int = 60) -> Tensor:
    places = torch.randint(0, 9, (count, 3), generator=seeded(1))
    return rooms.voxelize(places, places.new_zeros(count))[0]


def splat_arguments(dtype: torch.dtype) -> tuple[Any, ...]:
    return *splats(seeded(), 30, 3, dtype=dtype), 37, 51


def mesh(dtype: torch.dtype) -> tuple[Any, ...]:
    vertices = torch.rand(40, 3, generator=seeded(), dtype=dtype)
    return vertices, torch.randint(0, 40, (60, 3), generator=seeded()), 0.01, 2


def convolution(dtype: torch.dtype) -> tuple[Any, ...]:
    map_ = rooms.submanifold_map(voxels())
    rows = len(voxels())
    return torch.rand(rows, 5, dtype=dtype), torch.rand(27, 5, 6, dtype=dtype), map_


def project(means: Tensor, quats: Tensor, scales: Tensor) -> Any:
    return scenes.project(means, quats, scales, camera(dtype=means.dtype))


CALLS: dict[str, tuple[Callable[..., Any], Callable[[torch.dtype], tuple[Any, ...]]]] = {
    "knn": (scenes.knn, lambda t: (torch.rand(20, 3, dtype=t), torch.rand(50, 3, dtype=t), 4)),
    "project": (project, lambda t: gaussians(seeded(), 30, dtype=t)[:3]),
    "spherical_harmonics": (
        scenes.spherical_harmonics,
        lambda t: (
            *(torch.rand(30, 3, dtype=t), torch.rand(30, 16, 3, dtype=t)),
            *(torch.zeros(3, dtype=t), 3),
        ),
    ),
    "rasterize": (scenes.rasterize, splat_arguments),
    "blend_matrix": (
        scenes.blend_matrix,
        lambda t: (*splat_arguments(t)[:4], *splat_arguments(t)[5:]),
    ),
    "ssim": (ssim, lambda t: (torch.rand(3, 20, 24, dtype=t), torch.rand(3, 20, 24, dtype=t))),
    "adam_step": (
        adam_step,
        lambda t: (*(torch.rand(30, 3, dtype=t) for _ in range(4)), torch.full((3,), 0.1), 5),
    ),
    "voxelize": (
        rooms.voxelize,
        lambda t: (torch.randint(-9, 9, (50, 3)), torch.zeros(50, dtype=torch.long)),
    ),
    "submanifold_map": (rooms.submanifold_map, lambda t: (voxels(), 3, 1)),
    "strided_map": (rooms.strided_map, lambda t: (voxels(), (9, 9, 9))),
    "kernel_map": (rooms.kernel_map, lambda t: (voxels(), (9, 9, 9), 3, 2, 1, 1)),
    "sparse_conv": (rooms.sparse_conv, convolution),
    "segment_reduce": (
        rooms.segment_reduce,
        lambda t: (torch.rand(50, 4, dtype=t), torch.randint(0, 9, (50,)), 9, "max"),
    ),
    "mesh_superpoints": (rooms.mesh_superpoints, mesh),
    "cloud_superpoints": (rooms.cloud_superpoints, lambda t: (torch.rand(80, 3, dtype=t),)),
    "graph_superpoints": (
        rooms.graph_superpoints,
        lambda t: (
            *(torch.rand(40, 3, dtype=t), torch.rand(40, 3, dtype=t)),
            *(torch.randint(0, 40, (90, 2)), 0.01, 2),
        ),
    ),
}


def spoiled(tensor: Tensor, rng: random.Random) -> Tensor:
    """Changes a tensor's values, shape or layout."""
    tensor = tensor.clone(memory_format=torch.contiguous_format)
    kind = rng.choice(("values", "values", "values", "rows", "strided", "turned", "shape", "type"))
    if kind == "values" and tensor.numel():
        extremes = FLOATS if tensor.is_floating_point() else INTEGERS
        for _ in range(rng.choice((1, 1, 5, tensor.numel()))):
            place = rng.randrange(tensor.numel())
            tensor.view(-1)[place] = torch.tensor(rng.choice(extremes)).to(tensor.dtype)
    elif kind == "rows":
        tensor = tensor[: rng.choice((0, 1, len(tensor) // 2))] if tensor.ndim else tensor
    elif kind == "strided":
        tensor = torch.stack([tensor, tensor], dim=-1)[..., 0]
    elif kind == "turned" and tensor.ndim > 1:
        tensor = tensor.transpose(0, 1).contiguous().transpose(0, 1)
    elif kind == "shape":
        other = (tensor[..., :0], tensor[None], tensor.flatten(), tensor[..., None], tensor[:1])
        tensor = rng.choice(other) if tensor.ndim else tensor[None]
        if rng.randrange(2) and tensor.numel() == 1:
            tensor = tensor.expand(3, *tensor.shape)
    elif kind == "type":
        kinds = (torch.int8, torch.int32, torch.int64, torch.float16, torch.float64, torch.bool)
        tensor = tensor.to(rng.choice(kinds))
    return tensor


def call(name: str, number: int) -> str:
    """Makes the call of a number; returns what became of it."""
    rng = random.Random(f"{name} {number}")
    torch.manual_seed(number)
    function, make = CALLS[name]
    arguments = [*make(rng.choice((torch.float32, torch.float64)))]
    for _ in range(rng.choice((1, 1, 2, 3))):
        index = rng.randrange(len(arguments))
        value = arguments[index]
        if isinstance(value, Tensor):
            arguments[index] = spoiled(value, rng)
        elif isinstance(value, int | float):
            arguments[index] = rng.choice(SCALARS)
    if rng.randrange(2) and name != "adam_step":
        for value in arguments:
            if isinstance(value, Tensor) and value.is_floating_point():
                value.requires_grad_()
    try:
        results = function(*arguments)
        results = results if isinstance(results, tuple) else (results,)
        sums = [r.sum() for r in results if isinstance(r, Tensor) and r.requires_grad]
        if sums:
            torch.stack([s.double() for s in sums]).sum().backward()
    except ERRORS as error:
        return type(error).__name__
    return "returned"


def main() -> None:
    """Prints what became of the calls of each op."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ops", nargs="*", help=f"of {', '.join(CALLS)}; all by default")
    parser.add_argument("--calls", type=int, default=1000, help="of each op")
    parser.add_argument("--first", type=int, default=0, help="number of the first call")
    args = parser.parse_args()
    for name in args.ops or CALLS:
        counts: Counter[str] = Counter()
        for number in range(args.first, args.first + args.calls):
            sys.stderr.write(f"\r{name} {number}")
            counts[call(name, number)] += 1
        print(f"\r{name}: {dict(counts.most_common())}", flush=True)


if __name__ == "__main__":
    main()
