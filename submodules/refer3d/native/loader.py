"""Finds the compiled ops of a package that this machine can run.

``setup.py`` builds ``<package>._cpu_<variant>`` from the same sources for several instruction sets.
Two environment variables steer what is loaded:

* ``REFER3D_BACKEND``: ``reference`` for the ops in plain PyTorch, or a variant (``cpu-base``,
  ``cpu-avx2``, ``cpu-avx512``).
* ``REFER3D_STRICT=1``: an error instead of the reference where nothing compiled can be loaded.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import sys
import sysconfig
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
T = TypeVar("T")
REBUILD = "pip install -e . in the repository (with a C++17 compiler)"


def runnable_variants() -> list[str]:
    """The variants whose instructions this CPU has, fastest first.

    Read from PyTorch, so that ``ATEN_CPU_CAPABILITY`` lowers both alike.
    """
    capability = torch.backends.cpu.get_cpu_capability()
    return [*{"AVX512": ["avx512", "avx2"], "AVX2": ["avx2"]}.get(capability, []), "base"]


@functools.cache
def load(package: str) -> ModuleType | None:
    """The compiled ops of ``package``, or None where its reference ops must do.

    Warns of None, unless it was set, once for each package, with the reason.

    Raises:
        ImportError: Nothing can be loaded and ``REFER3D_STRICT=1``.
        ValueError: ``REFER3D_BACKEND`` names no backend of this machine.
    """
    variants = runnable_variants()
    choice = os.environ.get("REFER3D_BACKEND", "")
    if choice == "reference":
        return None
    if choice:
        if choice not in (choices := [f"cpu-{variant}" for variant in variants]):
            raise ValueError(
                f"REFER3D_BACKEND must be reference or one of {', '.join(choices)} on this machine,"
                f" got {choice!r}"
            )
        variants = [choice.removeprefix("cpu-")]

    reasons = []
    for variant in variants:
        name = f"{package}._cpu_{variant}"
        if importlib.util.find_spec(name) is None:
            continue
        try:
            return importlib.import_module(name)
        except ImportError as error:  # built for another Python or C++ library
            reasons.append(f"{name}: {error}")
    reason = "; ".join(reasons) or build_failure(package) or hidden_copy(package)
    reason = reason or "they were not built"
    message = f"{package} has no compiled ops: {reason}. To build them: {REBUILD}"
    if choice or os.environ.get("REFER3D_STRICT") == "1":
        raise ImportError(message)
    warnings.warn(f"{message}. Using the reference ops, which are slow.", stacklevel=3)
    return None


def cpu_ops(package: str, device: torch.device, dtype: torch.dtype) -> ModuleType | None:
    """The compiled ops of ``package``, or None where its reference must do.

    They take tensors of the CPU; of floating dtypes float32 and float64.
    """
    is_other_real = dtype.is_floating_point and dtype not in (torch.float32, torch.float64)
    return None if device.type != "cpu" or is_other_real else load(package)


def build_failure(package: str) -> str:
    """Why the last build failed, as ``setup.py`` noted it; empty if it did not."""
    spec = importlib.util.find_spec(package)
    for folder in spec.submodule_search_locations or [] if spec else []:
        report = Path(folder, "native_build.txt")
        if report.is_file():
            return report.read_text(encoding="utf-8").strip().replace("\n", "; ")
    return ""


def hidden_copy(package: str) -> str:
    """Names the folder of an installed copy that the current folder hides; empty without one."""
    spec = importlib.util.find_spec(package)
    here = {Path(folder).resolve() for folder in (spec and spec.submodule_search_locations) or ()}
    for folder in {sysconfig.get_path("platlib"), sysconfig.get_path("purelib")}:
        copy = Path(folder, package)
        if copy.resolve() not in here and any(copy.glob("_cpu_*")):
            return f"those in {copy} are hidden by {', '.join(map(str, here))}"
    return ""


def backend(package: str, device: torch.device | str = "cpu") -> str:
    """Name of the code that computes the ops of ``package`` on a device.

    ``cpu-avx512`` or another variant, ``cuda-sm_90`` or another architecture, or ``reference``.
    """
    from refer3d.native.cuda import kernels  # which imports what this module is a part of

    device = torch.device(device)
    if gpu := kernels(package, device, torch.float32):
        return gpu.name
    module = cpu_ops(package, device, torch.float32)
    return "reference" if module is None else "cpu-" + module.__name__.rpartition("_")[2]


_compiled: dict[tuple[str, str, torch.dtype], bool] = {}
"""Answers of :func:`is_compiled`."""


def is_compiled(package: str, like: Tensor) -> bool:
    """True where ``package`` has compiled ops for tensors as ``like``.

    Where it has none, a differentiable op is its reference itself, of which PyTorch finds the
    gradients: inside an operator it could not. A graph's compiler cannot look for the ops; it takes
    the last answer, and True before there is one.
    """
    from refer3d.native.cuda import kernels  # which imports what this module is a part of

    key = (package, like.device.type, like.dtype)
    if torch.compiler.is_compiling():
        return _compiled.get(key, True)
    found = kernels(package, like.device, like.dtype) or cpu_ops(package, like.device, like.dtype)
    _compiled[key] = bool(found)
    return _compiled[key]


def outside_graphs(function: Callable[P, T]) -> Callable[P, T]:
    """Keeps ``torch.compile`` from looking into a function, as ``torch.compiler.disable`` does.

    That imports the compiler, which takes 1.3 s. Here only a program that compiles imports it.
    """
    disabled: list[Any] = []

    @functools.wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> T:
        if "torch._dynamo" not in sys.modules:
            return function(*args, **options)
        if not disabled:
            disabled.append(torch.compiler.disable(function))
        return disabled[0](*args, **options)

    return call


def num_threads() -> int:
    """Threads that a compiled op may use: as many as PyTorch's own ops."""
    return torch.get_num_threads()
