"""Referring segmentation of point clouds: a mask for every noun phrase (3D-DRES, AAAI 2026)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from detailbase.inference.referrer import Referrer

__all__ = ["Referrer"]


def start() -> NoReturn:
    """Runs the command ``detailbase``."""
    from refer3d.runs.errors import run

    # Its imports take a second, in which Ctrl-C may come.
    run(lambda argv: importlib.import_module("detailbase.__main__").main(argv))


def __getattr__(name: str) -> object:
    """Imports :class:`Referrer` at its first use, because it imports the whole network."""
    if name == "Referrer":
        from detailbase.inference.referrer import Referrer

        return Referrer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
