"""The first step of every program that computes."""

from __future__ import annotations

import torch

from refer3d.native.loader import backend
from refer3d.runs.device import set_deterministic
from refer3d.runs.errors import InputError


def start_program(package: str, deterministic: bool = False, precision: str = "highest") -> None:
    """Sets PyTorch up for a program and loads the compiled ops.

    These settings hold for the whole process, so libraries leave them to their programs. cuDNN's
    attention is off: it plans anew for each shape, and every scan and sentence has its own.

    Args:
        package: Package whose ops the program uses.
        deterministic: Same bits for the same seed on a GPU.
        precision: Precision of float32 matrix products, as PyTorch names it.

    Raises:
        InputError: The ops that the environment asks for cannot be loaded.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.set_float32_matmul_precision(precision)
    set_deterministic(deterministic)
    try:
        backend(package)
    except (ValueError, ImportError) as error:
        raise InputError(str(error)) from error
