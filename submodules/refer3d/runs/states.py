"""States on disk: tensors and plain values, loaded without running code."""

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
"""Bytes; a disk that has no more left is full."""


def save_state(path: Path | str, state: dict[str, Any]) -> None:
    """Writes tensors and plain values, with a ``format`` number among them."""
    save_tensors(path, state)


def save_tensors(path: Path | str, value: Any) -> None:
    """What ``torch.save`` writes, whole or not at all.

    Raises:
        OSError: It cannot be written; the error names the file.
    """
    with atomic_write(path) as file:
        try:
            torch.save(value, file)
        except RuntimeError as error:  # how torch's zip writer says that a write failed
            if shutil.disk_usage(Path(path).parent).free < LITTLE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise OSError(errno.EIO, f"cannot be written ({str(error).splitlines()[0]})") from error


def load_state(path: Path | str, format: int) -> dict[str, Any]:  # noqa: A002
    """Reads what ``save_state`` wrote, without running any code in the file.

    Raises:
        InputError: If the file is absent, cut, not a state, or of another format.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; start the run without --resume")
    state = read_tensors(path, "delete it and start again")
    found = state.get("format") if isinstance(state, dict) else None
    if found != format:
        raise InputError(
            f"{path}: has format {found}, this code reads {format}; delete it and start again"
        )
    return state


def read_tensors(path: Path, advice: str, kind: str = "") -> Any:
    """What ``torch.save`` wrote, if it is tensors and plain values; no code in the file is run.

    Args:
        path: An existing file.
        advice: What to do where it cannot be read.
        kind: What it should be: " as a checkpoint".

    Raises:
        InputError: It is cut, or holds something else.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no pickle make its reader fail in any way
        reason = first_line(error) or type(error).__name__
        raise InputError(f"{path}: cannot be read{kind} ({reason}); {advice}") from error


def first_line(error: Exception) -> str:
    """What an error says first; of torch's long advice to run what is in the file, nothing."""
    text = str(error).partition("\n")[0]
    return "it holds no tensors" if "weights_only" in text else text
