"""Launchers of a package's kernels on a tensor's device."""

from __future__ import annotations

import functools
import os
import threading
import warnings
from collections.abc import Callable, Collection
from typing import Any, Protocol

import torch
from torch import Tensor

from refer3d.native.cuda.compiler import compiled, cuda_module, target
from refer3d.native.cuda.source import kernel_names, sources

REALS = {torch.float32: "float", torch.float64: "double"}
INSTALL = 'pip install "refer3d[cuda]" (a driver older than 580 needs "refer3d[cuda12]")'

Argument = Tensor | int | float | None
Load = Callable[[str, torch.device], "Kernels | None"]


class Kernels(Protocol):
    """Launches the kernels of one package."""

    @property
    def name(self) -> str:
        """``cuda-sm_90``, for another GPU its architecture."""
        ...

    @property
    def has_tf32(self) -> bool:
        """True where tensor cores take tf32, bfloat16 and long rows of float16: from sm_80 on."""
        ...

    def launch(
        self,
        file: str,
        kernel: str,
        blocks: int | tuple[int, int],
        threads: int,
        *arguments: Argument,
        **defines: str | int,
    ) -> None:
        """Runs ``kernel`` of ``csrc/<file>.cu``, compiled with ``defines``.

        A kernel's numbers are ``int64_t`` and ``double``; its pointers are those of contiguous
        tensors, or null for None.
        """


class CompiledKernels:
    """Launches on one GPU, on torch's current stream."""

    def __init__(self, package: str, device: torch.device) -> None:
        """Compiles all files of ``package`` once, in the form that tests know them to compile."""
        self.device = device
        self.sources = sources(package)
        capability = torch.cuda.get_device_capability(device)
        self.arch, self.has_tf32 = target(capability), capability >= (8, 0)
        self.name = f"cuda-{self.arch}"
        self.loaded: dict[tuple, Any] = {}
        self.lock = threading.Lock()
        self.thread = threading.local()
        with torch.cuda.device(device):
            self._enter_thread()
            for file, path in self.sources.items():
                for kernel in kernel_names(path):  # what does not fit the driver shows here
                    self._function(file, kernel, ())

    def launch(
        self,
        file: str,
        kernel: str,
        blocks: int | tuple[int, int],
        threads: int,
        *arguments: Argument,
        **defines: str | int,
    ) -> None:
        """See :class:`Kernels`."""
        values = [address(argument, self.device) for argument in arguments]
        with torch.cuda.device(self.device):
            self._enter_thread()
            function = self._function(file, kernel, tuple(sorted(defines.items())))
            stream = _stream(self.device, torch.cuda.current_stream().cuda_stream)
            cuda_module("core").launch(stream, _launch_config(blocks, threads), function, *values)

    def _enter_thread(self) -> None:
        """Makes the GPU's context current in a thread, as autograd's, that torch has not."""
        if not hasattr(self.thread, "is_ready"):
            cuda_module("core").Device(self.device.index).set_current()
            self.thread.is_ready = True

    def _function(self, file: str, kernel: str, defines: tuple) -> Any:
        key = (file, kernel, defines)
        if key not in self.loaded:
            self.loaded[key] = self._module(file, defines).get_kernel(kernel)
        return self.loaded[key]

    def _module(self, file: str, defines: tuple) -> Any:
        with self.lock:
            if (file, defines) not in self.loaded:
                code = compiled(self.sources[file], self.arch, dict(defines))
                is_ptx = self.arch.startswith("compute")
                loader = cuda_module("core").ObjectCode
                load = loader.from_ptx if is_ptx else loader.from_cubin
                self.loaded[file, defines] = load(code, name=file)
            return self.loaded[file, defines]


@functools.lru_cache(maxsize=1024)
def _launch_config(blocks: int | tuple[int, int], threads: int) -> object:
    """Blocks and threads of a launch, checked once."""
    return cuda_module("core").LaunchConfig(grid=blocks, block=threads)


@functools.lru_cache(maxsize=64)
def _stream(device: torch.device, handle: int) -> object:
    """Torch's stream as cuda-core takes it; the handle 0 is another one on each GPU."""
    return cuda_module("core").Stream.from_handle(handle)


def address(argument: Argument, device: torch.device) -> int | float:
    """A kernel's argument: the tensor's memory, or the number, of eight bytes.

    Raises:
        ValueError: The tensor lies elsewhere, or has gaps.
        TypeError: It is neither, as NumPy's numbers are, which may have fewer bytes.
    """
    if argument is None:
        return 0
    if isinstance(argument, bool):
        return int(argument)  # else cuda-core hands over one byte where the kernel reads eight
    if isinstance(argument, Tensor):
        if not argument.is_contiguous() or argument.device != device:
            raise ValueError(f"a kernel takes contiguous tensors on {device}")
        return argument.data_ptr()
    if type(argument) not in (int, float):
        raise TypeError(f"a kernel takes tensors, int and float, got {type(argument).__name__}")
    return argument


def kernels(
    package: str, device: torch.device, dtype: torch.dtype, dtypes: Collection[torch.dtype] = REALS
) -> Kernels | None:
    """Launcher of the kernels of ``package``, or None where its reference must do.

    Warns of None for a GPU, once for each package and GPU, with the reason.

    Args:
        package: With a folder ``csrc`` of kernels.
        device: A GPU, or a device with kernels of :func:`set_kernels`.
        dtype: Of the tensors.
        dtypes: The floating dtypes that the kernels take.

    Raises:
        ImportError: A GPU's kernels cannot be loaded, and ``REFER3D_STRICT=1``.
    """
    if dtype.is_floating_point and dtype not in dtypes:
        return None
    load = _loaders.get(device.type)
    return load(package, device) if load else None


def set_kernels(device_type: str, load: Load | None) -> Load | None:
    """Runs the CUDA kernels of all packages for tensors of another type of device.

    Args:
        device_type: Such as ``cpu``, whose own compiled code ``load`` replaces.
        load: Returns the launcher of a package's kernels on a device, or None to take its
            reference; None leaves such devices without kernels.

    Returns:
        What stood there before.
    """
    before = _loaders.pop(device_type, None)
    if load:
        _loaders[device_type] = load
    return before


@functools.cache
def _load(package: str, device: torch.device) -> Kernels | None:
    if os.environ.get("REFER3D_BACKEND") == "reference":
        return None
    try:
        loaded = CompiledKernels(package, device)
        _warn_of_first_use()
        return loaded
    except Exception as error:  # a package, a driver, an architecture, a compilation
        message = (
            f"{package} has no CUDA kernels on {device}: {type(error).__name__}: {error}. "
            f"To get them: {INSTALL}"
        )
        if os.environ.get("REFER3D_STRICT") == "1":
            raise ImportError(message) from error
    warnings.warn(f"{message}. Using the reference ops, which are slow.", stacklevel=4)
    return None


_loaders: dict[str, Load] = {"cuda": _load}


@functools.cache
def _warn_of_first_use() -> None:
    message = "the CUDA kernels are experimental: compiled and emulated, not yet run on a card"
    warnings.warn(f"{message}. Compare them with scripts/check_gpu.sh.", stacklevel=5)


def blocks_for(count: int, threads: int) -> int:
    """Number of blocks of ``threads`` that cover ``count``."""
    return -(-count // threads)
