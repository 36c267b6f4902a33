"""Devices and copies between them."""

from __future__ import annotations

import os

import psutil
import torch
from torch import Tensor

from refer3d.runs.errors import InputError


def choose_device(name: str) -> torch.device:
    """Returns the device of that name; for ``auto``, a GPU if there is one.

    Raises:
        InputError: There is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        one = torch.ones(1, device=name)
        one.cpu()  # a meta tensor has no values
        return one.device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"--device: {name!r} cannot be used ({reason}); leave it at auto"
        ) from error


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Copies ``tensor`` to ``device``; the copy from the CPU to a GPU is asynchronous."""
    is_upload = torch.device(device).type == "cuda" and tensor.device.type == "cpu"
    if is_upload and not torch.compiler.is_compiling():  # a graph has no such operation
        tensor = tensor.pin_memory()  # torch holds the memory until the copy is done
    # Asynchronous copies to the CPU could be read before they are done.
    return tensor.to(device, non_blocking=torch.device(device).type != "cpu")


def full_precision(values: Tensor) -> Tensor:
    """Converts to float32 at least: sums in bfloat16, which autocast returns, are too coarse."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def set_deterministic(enabled: bool) -> None:
    """Makes sums on a GPU run in a fixed order, for the whole process.

    PyTorch warns of operations that have no such implementation.
    """
    if enabled:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # required by cuBLAS
        # In warn_only mode PyTorch still uses these, whose gradients have no fixed order.
        torch.backends.cuda.enable_flash_sdp(False)
        torch.backends.cuda.enable_mem_efficient_sdp(False)
    torch.use_deterministic_algorithms(enabled, warn_only=True)


def free_memory(device: torch.device) -> int:
    """Returns the free bytes of a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available
