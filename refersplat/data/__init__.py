"""Scenes in: poses, photos, sentences and masks, read strictly and decoded late."""

from refersplat.data.scene import ReferredObject, Scene, View, load_ahead, load_scene

__all__ = ["ReferredObject", "Scene", "View", "load_ahead", "load_scene"]
