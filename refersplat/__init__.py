from __future__ import annotations

__all__ = ["TrainedScene"]


def __getattr__(name: str) -> object:
    """Imports :class:`TrainedScene` when it is asked for: it brings the whole model along."""
    if name == "TrainedScene":
        from refersplat.trained_scene import TrainedScene

        return TrainedScene
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
