"""Assertions on the messages of errors."""

from __future__ import annotations

from pathlib import Path


def assert_names(error: Exception, path: Path, *parts: str) -> None:
    """An error's message is one line that begins with a path and names the parts in order."""
    rest = str(error)
    assert rest.startswith(str(path))
    assert "\n" not in rest
    for part in parts:
        assert part in rest, f"{part!r} is not named, or not in order, in: {error}"
        rest = rest.partition(part)[2]
