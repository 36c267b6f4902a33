"""JSON files that others wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from refer3d.runs.errors import InputError


def read_json(path: Path) -> Any:
    """What a file holds.

    Raises:
        InputError: It is absent or no JSON.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; copy the dataset whole")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not JSON ({error}); copy it again") from error


def short(value: Any) -> str:
    """A value as an error shows it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
