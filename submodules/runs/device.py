"""Where a program computes."""

from __future__ import annotations

import psutil
import torch

from .errors import InputError


def choose_device(name: str) -> torch.device:
    """The device of that name; for ``auto`` a GPU where there is one.

    Raises:
        InputError: There is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"--device: {name!r} cannot be used ({reason}); leave it at auto"
        ) from error


def free_memory(device: torch.device) -> int:
    """Bytes that are free there now."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available
