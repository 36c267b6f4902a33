"""Files that are written whole or not at all, and states that a run can go on from."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch

from refer3d.runs.errors import InputError

LITTLE = 1 << 24
"""Bytes; a disk that has no more left is full."""


@contextmanager
def atomic_write(path: Path | str) -> Iterator[BinaryIO]:
    """A binary file that appears under ``path`` when the block ends, complete and on the disk.

    If the block raises or the process dies, what was there before stays untouched.

    Raises:
        OSError: It cannot be written, a full disk for example; the error names the file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with draft.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        if error.filename is None:  # as when a write finds no space
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()


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
