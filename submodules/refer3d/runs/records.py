"""JSON files that others wrote: reading, and fields of a checked type."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from refer3d.runs.errors import InputError

_KINDS = {str: "a string", list: "a list", dict: "an object", float: "a number", int: "an integer"}


def read_json(
    path: Path | str,
    kind: type | None = None,
    if_absent: str = "copy the dataset whole",
    if_broken: str = "copy it again",
) -> Any:
    """Reads a JSON file.

    Args:
        path: The file; UTF-8, with or without a byte order mark.
        kind: Type of its value; None allows all.
        if_absent: Remedy for a file that does not exist.
        if_broken: Remedy for a file that is not JSON.

    Raises:
        InputError: The file is absent, is not JSON or holds another type.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; {if_absent}")
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}: is not JSON (line {error.lineno}: {error.msg}); {if_broken}"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not JSON (not UTF-8 text); {if_broken}") from error
    except (
        ValueError,
        RecursionError,
        MemoryError,
    ) as error:  # a number of 5000 digits, 10 000 brackets
        raise InputError(f"{path}: is not JSON ({error}); {if_broken}") from error
    return value if kind is None else as_kind(value, kind, str(path), if_broken)


def as_kind(value: Any, kind: type, where: str, remedy: str = "correct the file") -> Any:
    """Returns ``value`` if it is of the type; integers are numbers, too, booleans are not.

    Raises:
        InputError: The value is of another type, or a number that is not finite.
    """
    kinds = (int, float) if kind is float else (kind,)
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise InputError(f"{where}: expected {_KINDS[kind]}, got {short(value)}; {remedy}")
    if kind is float and not math.isfinite(value):
        raise InputError(f"{where}: expected a finite number, got {value}; {remedy}")
    return value


def take(
    record: Mapping[str, Any],
    key: str,
    kind: type,
    where: str,
    remedy: str = "",
) -> Any:
    """Returns the field ``key`` of a JSON object.

    Raises:
        InputError: The field is missing or of another type.
    """
    if key not in record:
        keys = first_few([short(name) for name in record], 6) or "nothing"
        raise InputError(f"{where}: expected the key {key!r}, got {keys}; {remedy or 'add it'}")
    return as_kind(record[key], kind, f"{where}: {key}", remedy or "correct the file")


def short(value: Any) -> str:
    """Formats a value for an error message, in at most 60 characters."""
    try:
        text = reprlib.repr(value) if isinstance(value, list | tuple | dict) else repr(value)
    except (ValueError, RecursionError):  # a number of 5000 digits
        text = f"a {type(value).__name__} too long to show"
    return text if len(text) <= 60 else f"{text[:57]}..."


def first_few(names: Sequence[str], most: int = 3) -> str:
    """Lists names for a message, with an ellipsis for those beyond ``most``."""
    return ", ".join(names[:most]) + ", …" * (len(names) > most)
