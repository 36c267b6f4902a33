"""Resources that each CUDA kernel takes: python benchmarks/kernels.py [--arch sm_90].

Registers, local memory, shared memory and occupancy say how much a kernel can hide of the memory's
delays. They are read from the compiler's log; no GPU is needed.
"""

from __future__ import annotations

import argparse
import re
from typing import NamedTuple

from refer3d.native.cuda.compiler import compile_kernels
from refer3d.native.cuda.source import sources

VARIANTS: dict[tuple[str, str], list[dict[str, str | int]]] = {
    ("refersplat", "project"): [{"DEGREE": degree} for degree in range(4)],
    ("refersplat", "rasterize"): [{"CHANNELS": width} for width in (1, 3, 4, 8, 16, 32)],
    ("refersplat", "blend"): [{"CHANNELS": width} for width in (1, 8, 16)],
    ("detailbase", "sparse_conv"): [
        {"ALIGNED": 1, "SIDE": side, **precision}
        for side in (32, 64)
        for precision in ({}, {"PRECISION": "kTf32"}, {"PRECISION": "kBfloat16", "HALF": 1})
    ],
}
"""Defines of the files, beside their defaults."""
THREADS = {"project": 128, "knn": 128, "segments": 512}
"""Threads of a block, where they are not 256."""


class Resources(NamedTuple):
    """Resources of one kernel."""

    registers: int
    """Registers of each thread."""
    local: int
    """Bytes of each thread in local memory: spilled registers, and arrays that are not unrolled."""
    shared: int
    """Bytes of each block."""

    def blocks(self, threads: int) -> int:
        """Blocks that fit on a multiprocessor at once, of sm_90 and sm_100."""
        registers = -(-self.registers // 8) * 8 * threads
        return min(2048 // threads, 65536 // registers, 233472 // (self.shared + 1024), 32)


def read_resources(log: str) -> dict[str, Resources]:
    """The kernels in the log of a compilation with ``ptxas_options="-v"``, by their names."""
    parts = re.split(r"entry function '(\w+)'", log)
    numbers = [r"Used (\d+) registers", r"(\d+) bytes stack frame", r"(\d+) bytes smem"]
    return {
        name: Resources(*(int(found[-1]) if (found := re.findall(n, text)) else 0 for n in numbers))
        for name, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="sm_90")
    arch = parser.parse_args().arch
    print("| kernel | compiled with | registers | local | shared | blocks | occupancy |")
    print("|---|---|---|---|---|---|---|")
    for package in ("refersplat", "detailbase"):
        for file, path in sources(package).items():
            threads = THREADS.get(file, 256)
            for defines in VARIANTS.get((package, file), [{}]):
                _, log = compile_kernels(path, arch, defines, ptxas_options="-v")
                options = " ".join(f"{name}={value}" for name, value in defines.items())
                for kernel, takes in sorted(read_resources(log).items()):
                    blocks = takes.blocks(threads)
                    cells = (takes.registers, takes.local, takes.shared, blocks)
                    numbers = " | ".join(map(str, cells))
                    share = blocks * threads / 2048
                    print(f"| {file}: {kernel} | {options} | {numbers} | {share:.0%} |")


if __name__ == "__main__":
    main()
