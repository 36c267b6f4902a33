"""Referring segmentation in 3D Gaussian Splatting (ReferSplat, He et al., ICML 2025)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from refersplat.inference.trained_scene import TrainedScene
    from refersplat.ops.rasterization import rasterization

__all__ = ["TrainedScene", "rasterization"]


def start() -> NoReturn:
    """Runs the command ``refersplat``."""
    from refer3d.runs.errors import run

    # Its imports take a second, in which Ctrl-C may come.
    run(lambda argv: importlib.import_module("refersplat.__main__").main(argv))


def __getattr__(name: str) -> object:
    """Imports a public name at its first use: :class:`TrainedScene` needs the whole model."""
    if name == "TrainedScene":
        from refersplat.inference.trained_scene import TrainedScene

        return TrainedScene
    if name == "rasterization":
        from refersplat.ops.rasterization import rasterization

        return rasterization
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
