"""Kernels compiled by NVRTC, through NVIDIA's ``cuda-core``."""

from __future__ import annotations

import functools
import importlib
import io
import logging
from pathlib import Path
from typing import Any

from refer3d.native.cuda.source import Defines, cache_folder, digest, read_source
from refer3d.runs.files import atomic_write

OPTIONS = {"std": "c++17"}

logger = logging.getLogger(__name__)


@functools.cache
def cuda_module(name: str) -> Any:
    """A module of NVIDIA's package ``cuda``, which has no Python source for a type checker."""
    return importlib.import_module(f"cuda.{name}")


def target(capability: tuple[int, int]) -> str:
    """Target of a compilation: the GPU's own code, or NVRTC's newest PTX for a newer GPU.

    Raises:
        RuntimeError: NVRTC no longer knows the GPU.
    """
    _, supported = cuda_module("bindings.nvrtc").nvrtcGetSupportedArchs()
    gpu = 10 * capability[0] + capability[1]
    if gpu in supported:
        return f"sm_{gpu}"
    older = [arch for arch in supported if arch < gpu]
    if not older:
        raise RuntimeError(f"NVRTC compiles for sm_{min(supported)} and later, the GPU is sm_{gpu}")
    return f"compute_{max(older)}"


def compile_kernels(path: Path, arch: str, defines: Defines, **options: Any) -> tuple[bytes, str]:
    """Compiles a file without looking at what is kept.

    Args:
        path: Kernel file.
        arch: As :func:`target` names it.
        defines: Macros.
        **options: Further ones of cuda-core's ``ProgramOptions``.

    Returns:
        The code, and the compiler's log.

    Raises:
        Exception: cuda-core's, with the compiler's log.
    """
    core, log = cuda_module("core"), io.StringIO()
    macros = [(name, str(value)) for name, value in sorted(defines.items())] or None
    options = {"arch": arch, "name": path.name, "define_macro": macros, **OPTIONS, **options}
    program = core.Program(read_source(path), "c++", core.ProgramOptions(**options))
    code = program.compile("ptx" if arch.startswith("compute") else "cubin", logs=log).code
    return bytes(code), log.getvalue().strip("\0\n ")


def compiled(path: Path, arch: str, defines: Defines) -> bytes:
    """The code of a file: what is kept of an earlier compilation, or a new one, which is kept.

    Any number of processes may ask at once: a file appears whole, and all would write the same.
    """
    _, *version = cuda_module("bindings.nvrtc").nvrtcVersion()
    key = digest(read_source(path), sorted(defines.items()), sorted(OPTIONS.items()), arch, version)
    kept = cache_folder() / "kernels" / f"{path.stem}-{arch}-{key}.bin"
    try:
        return kept.read_bytes()
    except OSError:
        code, _ = compile_kernels(path, arch, defines)
    try:
        with atomic_write(kept) as file:
            file.write(code)
    except OSError as error:  # a home that cannot be written to costs time, not the run
        logger.warning("compiled kernels cannot be kept in %s: %s", kept.parent, error)
    return code
