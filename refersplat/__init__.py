"""Referring segmentation in 3D Gaussian Splatting (ReferSplat, He et al., ICML 2025)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from refersplat.inference.trained_scene import TrainedScene
    from refersplat.ops.rasterization import rasterization

__all__ = ["TrainedScene", "rasterization"]


def __getattr__(name: str) -> object:
    """Imports a public name at its first use: :class:`TrainedScene` needs the whole model."""
    if name == "TrainedScene":
        from refersplat.inference.trained_scene import TrainedScene

        return TrainedScene
    if name == "rasterization":
        from refersplat.ops.rasterization import rasterization

        return rasterization
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
