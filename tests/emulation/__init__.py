"""The CUDA kernels on a CPU, compiled by g++: a wrong index or a race shows without a GPU."""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from refer3d.native.cuda.launcher import Argument, set_kernels
from refer3d.native.cuda.source import (
    Defines,
    cache_folder,
    digest,
    kernel_names,
    read_source,
    sources,
)

COMPILER = [
    *("g++", "-std=c++17", "-O1", "-g0", "-shared", "-fPIC", "-x", "c++"),
    *("-U_FORTIFY_SOURCE", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"),
    *("-Wno-clobbered", "-Wno-unused-function", "-ffp-contract=off"),
]
MARGIN = 1024
"""Bytes on both sides of a tensor that no kernel may touch; as numbers they are NaN."""
FILLING = 0xFF
KINDS = {
    torch.float32: "F",
    torch.float64: "D",
    torch.uint8: "1",
    torch.bool: "1",
    torch.int16: "2",
    torch.float16: "H",
    torch.bfloat16: "H",
    torch.int32: "4",
    torch.int64: "8",
}


@dataclass
class EmulatedKernels:
    """Runs the kernels of a package on CPU tensors, threads forwards or backwards."""

    name = "emulated"
    has_tf32 = True

    package: str
    backwards: bool = False
    launched: set[str] = field(default_factory=set)
    """Kernels that have run, so that a test can tell that it has tested something."""

    def launch(
        self,
        file: str,
        kernel: str,
        blocks: int | tuple[int, int],
        threads: int,
        *arguments: Argument,
        **defines: str | int,
    ) -> None:
        """Runs a kernel on copies of its tensors, and copies back.

        Raises:
            RuntimeError: If the kernel does what a GPU leaves undefined, or writes elsewhere.
        """
        library = _library(sources(self.package)[file], tuple(sorted(defines.items())))
        run = getattr(library, f"emulate_{kernel}")
        run.restype = ctypes.c_char_p
        copies: dict[int, tuple[Tensor, Tensor]] = {}
        values, kinds = [], ""
        for argument in arguments:
            value, kind = self._argument(argument, copies)
            values.append(value)
            kinds += kind
        grid = blocks if isinstance(blocks, tuple) else (blocks, 1)
        with _one_at_a_time:
            error = run(
                (ctypes.c_uint64 * len(values))(*values),
                kinds.encode(),
                *map(ctypes.c_uint, (*grid, threads)),
                ctypes.c_bool(self.backwards),
            )
        if error:
            raise RuntimeError(f"{file}.cu: {kernel}: {error.decode()}")
        for tensor, copy in copies.values():
            if (copy[:MARGIN] != FILLING).any() or (copy[-MARGIN:] != FILLING).any():
                raise RuntimeError(f"{file}.cu: {kernel} writes beyond a tensor {tensor.shape}")
            ctypes.memmove(tensor.data_ptr(), copy.data_ptr() + MARGIN, tensor.nbytes)
        self.launched.add(kernel)

    def _argument(
        self, argument: Argument, copies: dict[int, tuple[Tensor, Tensor]]
    ) -> tuple[int, str]:
        """A kernel's argument as eight bytes, and its kind as ``emulation.h`` names it."""
        if argument is None:
            return 0, "0"
        if isinstance(argument, float):
            return ctypes.c_uint64.from_buffer(ctypes.c_double(argument)).value, "d"
        if isinstance(argument, int):
            return int(argument) & (2**64 - 1), "l"
        if not isinstance(argument, Tensor):
            raise TypeError(f"a kernel takes tensors, int and float, got {type(argument).__name__}")
        if not argument.is_contiguous():
            raise ValueError("a kernel takes contiguous tensors")
        place = argument.data_ptr() or id(argument)
        if place not in copies:
            copy = torch.full((argument.nbytes + 2 * MARGIN,), FILLING, dtype=torch.uint8)
            ctypes.memmove(copy.data_ptr() + MARGIN, argument.data_ptr(), argument.nbytes)
            copies[place] = (argument, copy)
        return copies[place][1].data_ptr() + MARGIN, KINDS[argument.dtype]


_one_at_a_time = threading.Lock()


@contextmanager
def emulation(backwards: bool = False) -> Iterator[None]:
    """Inside, the ops run their CUDA kernels for CPU tensors.

    Args:
        backwards: Run the threads of a block in the reverse order.
    """
    before = set_kernels("cpu", lambda package, _: _kernels(package, backwards))
    try:
        yield
    finally:
        set_kernels("cpu", before)


@functools.cache
def _kernels(package: str, backwards: bool) -> EmulatedKernels:
    return EmulatedKernels(package, backwards)


@functools.cache
def _library(path: Path, defines: tuple) -> ctypes.CDLL:
    return ctypes.CDLL(str(compile_for_cpu(path, dict(defines))))


def compile_for_cpu(path: Path, defines: Defines) -> Path:
    """The library of a file's kernels, made anew where its text or the defines have changed."""
    text = read_source(path, Path(__file__).parent)
    text += "".join(f"\nREFER_EMULATE({name})" for name in kernel_names(path))
    key = digest(text, sorted(defines.items()), COMPILER)
    library = cache_folder() / "emulated" / f"{path.stem}-{key}.so"
    if library.is_file():
        return library
    library.parent.mkdir(parents=True, exist_ok=True)
    macros = [f"-D{name}={value}" for name, value in defines.items()]
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        draft = Path(folder, library.name)
        done = subprocess.run(
            [*COMPILER, *macros, "-o", str(draft), "-"],
            input=text,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"g++ cannot compile {path.name}:\n{done.stderr[:4000]}")
        os.replace(draft, library)
    return library
