"""Saved states: tensors and plain values, loaded without running code."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from refer3d.runs.errors import InputError
from refer3d.runs.files import atomic_write

LITTLE = 1 << 24
"""Free bytes below which a disk counts as full."""


def save_state(path: Path | str, value: Any) -> None:
    """Writes tensors and plain values; the file appears whole or not at all.

    A state for :func:`load_state` is a dict with its ``format`` number.

    Raises:
        OSError: Writing fails; the error names the file.
    """
    with atomic_write(path) as file:
        try:
            torch.save(value, file)
        except RuntimeError as error:  # torch's zip writer after a failed write
            if shutil.disk_usage(Path(path).parent).free < LITTLE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise OSError(errno.EIO, f"cannot be written ({str(error).splitlines()[0]})") from error


def load_state(path: Path | str, format: int) -> dict[str, Any]:  # noqa: A002
    """Reads a state of ``save_state``; no code in the file is run.

    Raises:
        InputError: The file is absent, cut, not a state, or of another format.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; start the run without --resume")
    state = read_tensors(path, "delete it and start again")
    actual = state.get("format") if isinstance(state, dict) else None
    if actual != format:
        raise InputError(
            f"{path}: has format {actual}, this code reads {format}; delete it and start again"
        )
    return state


def read_tensors(path: Path, advice: str, kind: str = "") -> Any:
    """Loads tensors and plain values from a file of ``torch.save``; no code in it is run.

    Args:
        path: An existing file.
        advice: Remedy for an unreadable file.
        kind: Kind of the file in the error: " as a checkpoint".

    Raises:
        InputError: The file is cut, or holds other objects.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler fails in any way on other bytes
        reason = first_line(error) or type(error).__name__
        raise InputError(f"{path}: cannot be read{kind} ({reason}); {advice}") from error


def first_line(error: Exception) -> str:
    """Returns an error's first line, without torch's advice to run the code in the file."""
    text = str(error).partition("\n")[0]
    return "it holds no tensors" if "weights_only" in text else text
