"""Assertions on error messages that leave their wording free."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def raises(kind: type[BaseException], *names: object) -> Iterator[pytest.ExceptionInfo]:
    """Expects an error whose message names a file or argument, its values and the remedy.

    Args:
        kind: Its type.
        names: Words of its message, in any order, such as ``path, "epochs", "--resume"``.
    """
    with pytest.raises(kind) as error:
        yield error
    assert_names(error.value, *names)


def assert_names(message: object, *names: object) -> None:
    """Asserts that a message contains all names, each as words of its own."""
    text = str(message)
    missing = [n for n in names if not re.search(rf"(?<!\w){re.escape(str(n))}(?!\w)", text)]
    assert not missing, f"{missing} not in: {text}"
