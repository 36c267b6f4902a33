"""Files that appear whole or not at all; text and contents of files that others wrote."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

DRAFT = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")
HOUR = 3600.0
"""No draft takes longer."""


@contextmanager
def atomic_write(path: Path | str) -> Iterator[BinaryIO]:
    """Opens a binary file that replaces ``path`` when the block ends, complete and on the disk.

    If the block raises or the process dies, the former file stays.

    Raises:
        OSError: Writing fails, as on a full disk; the error names the file.
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
        if error.filename in (None, str(draft)):  # as on a full disk, or where a folder is
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()


def decode_text(data: bytes) -> str:
    """Decodes UTF-16 by its byte order mark, UTF-8 with or without one, else Windows-1252."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


_CONTENTS = {
    b"version https://git-lfs": "a Git LFS pointer (run git lfs pull)",
    b"<!DOCTYPE": "a web page",
    b"<html": "a web page",
    b"ply": "a PLY file",
    b"glTF": "a glTF file",
    b"\x1f\x8b": "a gzip archive",
    b"PK": "a zip archive",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x93NUMPY": "a NumPy array",
    b"LASF": "a LAS cloud",
    b"ASTM-E57": "an E57 scan",
    b"# .PCD": "a PCD cloud",
    b"OFF": "an OFF mesh",
    b"solid": "an STL mesh",
}
"""Contents of files by their first bytes."""


def describe_content(start: bytes) -> str:
    """Says what a file is by its first bytes; empty if they are not known."""
    if not start.strip(b"\0"):
        return "only zeros" if start else "an empty file"
    return next((kind for magic, kind in _CONTENTS.items() if start.startswith(magic)), "")


def sweep_drafts(folder: Path, seconds: float = 0.0) -> None:
    """Removes the drafts that killed processes have left below a folder.

    Args:
        folder: The folder.
        seconds: Least age of a draft; the default is for folders that only this process writes to.
    """
    for path in folder.rglob(".*.tmp"):
        with suppress(OSError):  # another process is faster, or may not write here
            if DRAFT.fullmatch(path.name) and time.time() - path.stat().st_mtime >= seconds:
                path.unlink()
