"""Reads scenes: poses, photos, sentences and masks, checked early and decoded late."""

from refersplat.data.scene import Scene, load_scene
from refersplat.data.views import ReferredObject, View, load_ahead

__all__ = ["ReferredObject", "Scene", "View", "load_ahead", "load_scene"]
