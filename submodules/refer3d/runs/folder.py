"""The folder of a run."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from typing import Generic, TextIO, TypeVar

from refer3d.runs.config import load_yaml, model_of, save_yaml
from refer3d.runs.errors import InputError
from refer3d.runs.files import sweep_drafts
from refer3d.runs.options import differences, options

log = logging.getLogger(__name__)

Schema = TypeVar("Schema")

RESOLVED = "config.yaml"
"""File with every option of the run."""
TIMINGS = "timings.json"
LOCK = ".lock"
READERS = {
    "refersplat": "refersplat eval -m {0}",
    "detailbase": "detailbase eval --checkpoint {0}/best.pth",
}
"""Commands that read a run, by its model; the braces hold its folder."""
_DEPTH = 3  # folders from a run's point_cloud.ply up to the run's
_held: dict[tuple[int, Path], object] = {}
"""Folders that this process holds, with its number: a fork holds none of them."""


def other_run(path: Path | str, own: str) -> str:
    """Says which other model's run a file or folder is of, and what reads it.

    Args:
        path: The file or folder.
        own: The model that cannot read it.

    Returns:
        The end of an error message; empty if the path is of no other model's run.
    """
    path = Path(path).absolute()
    for folder in (path, *path.parents[:_DEPTH]):
        model = model_of(folder / RESOLVED)
        if model in READERS and model != own:
            command = READERS[model].format(folder)
            return f"this is a run of {model}, and {own} reads its own; use {command}"
    return ""


def refuse_file(option: str, path: Path | str) -> None:
    """Refuses a file where ``option`` should name a folder.

    Raises:
        InputError: The path is a file.
    """
    if Path(path).exists() and not Path(path).is_dir():
        raise InputError(f"{option}: expected a folder, got the file {path}; name another")


class RunFolder(Generic[Schema]):
    """A folder that belongs to one run, and the options that the run was trained with."""

    def __init__(self, path: Path | str, schema: type[Schema]) -> None:
        self.path = Path(path)
        self.schema = schema

    @property
    def config_file(self) -> Path:
        """The options of the run; the file makes the folder a run's."""
        return self.path / RESOLVED

    def exists(self) -> bool:
        """Whether a run has claimed the folder."""
        return self.config_file.is_file()

    def config(self) -> Schema:
        """Reads the options of the run.

        Raises:
            InputError: The folder holds no run, or the file is damaged.
        """
        if not self.exists():
            raise InputError(
                f"{self.config_file}: no such file, so {self.path} is no folder that train.py has "
                "written; name that of a run"
            )
        return load_yaml(self.config_file, self.schema, warn=False)

    def changes(self, config: Schema, program: str) -> list[str]:
        """Names the options that differ from the run's and may not in ``program``."""
        fixed = {o.name for o in options(self.schema) if not o.can_change_in(program)}
        return [name for name in differences(config, self.config()) if name in fixed]

    def refuse_changes(self, config: Schema, program: str, remedy: str) -> None:
        """Refuses options that the training has fixed.

        Raises:
            InputError: One of them differs; the message ends with ``remedy``.
        """
        for name in self.changes(config, program):
            value, run_value = (attrgetter(name)(c) for c in (config, self.config()))
            raise InputError(
                f"--{name}: the run in {self.path} was trained with {run_value!r}, got {value!r}; "
                f"leave the option out, or {remedy}"
            )

    def refuse_second_run(self, option: str) -> None:
        """Refuses to overwrite a run.

        Raises:
            InputError: The folder, which ``option`` names, holds one.
        """
        if self.config_file.exists():
            raise InputError(
                f"{option}: {self.path} already holds a run and --resume was not given; resume it, "
                "name another folder, or delete it"
            )

    @contextmanager
    def held(self, option: str) -> Iterator[None]:
        """Holds the folder, which is made if need be; removes the drafts of killed processes.

        The system ends the lock with the process, however that ends.

        Raises:
            InputError: The folder, which ``option`` names, is held, by another process or by this
                one.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        entry, holder = (os.getpid(), self.path.resolve()), object()
        if _held.setdefault(entry, holder) is not holder:
            # The system would give the lock again, and end it with the first of its holders.
            raise InputError(
                f"{option}: this process is writing to {self.path} already; let that run end "
                "first, or name another folder"
            )
        try:
            with (self.path / LOCK).open("a") as file:
                if not _lock(file):
                    raise InputError(
                        f"{option}: another run is writing to {self.path}; wait for it, or name "
                        "another folder"
                    )
                sweep_drafts(self.path)
                yield
        finally:
            del _held[entry]

    def claim(self, config: Schema) -> None:
        """Makes the folder the run's own by writing its options there."""
        save_yaml(config, self.config_file)


def _lock(file: TextIO) -> bool:
    """Locks a file until it is closed; False if another process has locked it.

    Forked processes, such as those that read data and may live a little longer, share no such lock.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        log.warning("%s: cannot be locked (%s): start no second run there", file.name, error)
    return True
