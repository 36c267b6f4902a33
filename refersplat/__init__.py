"""Referring segmentation in 3D Gaussian Splatting (ReferSplat, He et al., ICML 2025)."""

from __future__ import annotations

__all__ = ["TrainedScene"]


def __getattr__(name: str) -> object:
    """Imports :class:`TrainedScene` when it is asked for: it brings the whole model along."""
    if name == "TrainedScene":
        from refersplat.inference.trained_scene import TrainedScene

        return TrainedScene
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
