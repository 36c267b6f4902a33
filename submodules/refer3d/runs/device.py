"""Where a program computes."""

from __future__ import annotations

import os

import psutil
import torch
from torch import Tensor

from refer3d.runs.errors import InputError


def choose_device(name: str) -> torch.device:
    """The device of that name; for ``auto`` a GPU where there is one.

    Raises:
        InputError: There is no such device.
    """
    # It prepares itself for each new shape, and every scan and sentence has another.
    torch.backends.cuda.enable_cudnn_sdp(False)
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
    """``tensor`` on ``device``; nobody waits for the copy from the CPU to a GPU."""
    is_sent = torch.device(device).type == "cuda" and tensor.device.type == "cpu"
    if is_sent and not torch.compiler.is_compiling():  # a graph has no such operation
        tensor = tensor.pin_memory()  # torch keeps the memory until the copy is through
    # What comes back from a GPU is waited for: else it would be read before it is there.
    return tensor.to(device, non_blocking=torch.device(device).type != "cpu")


def set_deterministic(wanted: bool) -> None:
    """Whether a GPU adds up in a fixed order.

    PyTorch warns of what it cannot do so, where it has no other way.
    """
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
        # Where it only warns, PyTorch still takes these, whose gradients have no order.
        torch.backends.cuda.enable_flash_sdp(False)
        torch.backends.cuda.enable_mem_efficient_sdp(False)
    torch.use_deterministic_algorithms(wanted, warn_only=True)


def free_memory(device: torch.device) -> int:
    """Bytes that are free there now."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available
