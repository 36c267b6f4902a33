"""Masks of a label in all photos, and its files in Ref-LERF's layout."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from refer3d.runs.errors import InputError
from refer3d.runs.files import HOUR, sweep_drafts
from refersplat.data import Scene, View
from refersplat.data.names import ViewNames
from refersplat.data.ref_lerf import REF_LERF, write
from refersplat.splats.gaussians import Gaussians
from refersplat.splats.render import frozen_blend

LEAST_PIXELS = 20
"""Pixels of the training image below which an object does not show in a photo, as in gRefCOCO."""
_writing = threading.Lock()  # two users may save at once


@torch.inference_mode()
def render_masks(
    gaussians: Gaussians,
    selected: Tensor,  # [N] bool
    views: Sequence[View],
) -> Iterator[tuple[View, np.ndarray]]:
    """Yields each photo with the visible mask [h, w] bool of some Gaussians, in its own pixels."""
    shares = selected.to(gaussians.means.dtype)[:, None]
    for view in views:
        (share,) = frozen_blend(gaussians, view.camera).blend(shares)  # [H, W]
        mask = view.to_photo(share.float().cpu().numpy()) >= 0.5
        yield view, mask if int((share >= 0.5).sum()) >= LEAST_PIXELS else np.zeros_like(mask)


def category_of(name: str) -> str:
    """The category of a name that somebody typed: "Red mug" is ``red_mug``.

    Raises:
        InputError: It has no letter or digit.
    """
    category = re.sub(r"[\W_]+", "_", name.strip().lower()).strip("_")
    if not category:
        raise InputError(f"name: expected that of the object, got {name!r}; write one")
    return category


def label_of(scene: Scene) -> dict[str, list[str]]:
    """The sentences of each category that the scene's files name, read anew."""
    labels: dict[str, list[str]] = {}
    annotations = REF_LERF.read(
        scene.path, scene_names(scene), test=set(), masks="gt_mask", warnings=[]
    )
    for annotation in (item for of_view in annotations.values() for item in of_view):
        if annotation.category:
            sentences = labels.setdefault(annotation.category, [])
            sentences += [text for text in annotation.sentences if text not in sentences]
    return labels


def save_label(
    scene: Scene, name: str, sentences: Sequence[str], masks: Mapping[str, np.ndarray]
) -> str:
    """Writes a label beside the photos, for training; one of the same name is replaced.

    Args:
        scene: The scene.
        name: Name of the object.
        sentences: Sentences about it; empty ones are left out.
        masks: Masks [h, w] bool by view name; empty ones are left out.

    Returns:
        The category under which it is stored.

    Raises:
        InputError: There is no name, sentence or mask, or a file of the scene is broken.
    """
    category = category_of(name)
    texts = list(dict.fromkeys(text for line in sentences if (text := line.strip())))
    shown = {view: mask for view, mask in masks.items() if mask.any()}
    if not shown:
        raise InputError(f"{category}: expected a mask in some photo, got none; draw a lasso")
    with _writing:
        for folder in ("json", "gt_mask"):  # of killed viewers
            sweep_drafts(scene.path / folder, HOUR)
        write(scene.path, scene_names(scene), category, texts, shown)
    return category


def scene_names(scene: Scene) -> ViewNames:
    """Finds the views of a scene by their names."""
    return ViewNames([view.name for view in scene.views], [view.path.name for view in scene.views])
