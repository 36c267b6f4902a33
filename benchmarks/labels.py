"""Labels the objects of a run by rough outlines: python benchmarks/labels.py RUN.

Outlines of 20 corners follow an object's whole silhouette at a distance, in one view and in two and
three from different sides; the masks that they give in training views are compared with the true
ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from refer3d.runs.folder import RunFolder
from refersplat.config import Config
from refersplat.data import ReferredObject, View, load_scene
from refersplat.labels.files import LEAST_PIXELS, render_masks
from refersplat.labels.lasso import combine, select_lasso
from refersplat.metrics import iou
from refersplat.splats.checkpoints import trained_gaussians

CORNERS = 20


def object_of(view: View, category: str) -> ReferredObject | None:
    """The first object of a category in a view."""
    return next((item for item in view.objects if item.category == category), None)


def outline_of(view: View, category: str, margin: float = 0.1) -> np.ndarray:  # [P, 2]
    """Corners around an object of the view, a share of its size away, in pixels."""
    item = object_of(view, category)
    assert item is not None
    whole = item.amodal_mask()
    mask = (item.mask() if whole is None else whole).numpy().astype(np.uint8)
    distance = max(2, round(margin * float(mask.sum()) ** 0.5))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * distance + 1,) * 2)
    outlines, _ = cv2.findContours(
        cv2.dilate(mask, kernel), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    outline = max(outlines, key=len)[:, 0]
    return outline[np.linspace(0, len(outline), CORNERS, endpoint=False).astype(int)]


def different_views(views: Sequence[View], category: str, count: int = 2) -> list[View]:
    """Chooses the best and most different of that half of the views that shows an object best."""

    def pixels(view: View) -> int:
        item = object_of(view, category)
        return 0 if item is None else int(item.mask().sum())

    best = sorted(views, key=pixels, reverse=True)[: max(1, len(views) // 2)]
    axes = {view.name: view.camera.world_to_camera[2, :3] for view in best}
    chosen = best[:1]
    while len(chosen) < count:
        turned = torch.stack([axes[view.name] for view in chosen])
        chosen.append(min(best, key=lambda view: float((turned @ axes[view.name]).abs().max())))
    return chosen


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="run of an annotated scene")
    run = parser.parse_args().run
    scene = load_scene(RunFolder(run, Config).config().data)
    gaussians = trained_gaussians(run)
    categories = sorted({str(item.category) for view in scene.train for item in view.objects})
    for margin in (0.1, 0.2):
        for count in (1, 2, 3):
            means = {}
            for category in categories:
                lassos = [
                    select_lasso(gaussians, view.camera, outline_of(view, category, margin))
                    for view in different_views(scene.train, category, count)
                ]
                selected = combine(gaussians, lassos)
                scores = [
                    iou(torch.from_numpy(mask), item.mask())
                    for view, mask in render_masks(gaussians, selected, scene.train[::4])
                    if (item := object_of(view, category)) and item.mask().sum() >= LEAST_PIXELS
                ]
                means[category] = float(np.mean(scores))
            worst = min(means, key=lambda category: means[category])
            print(
                f"margin {margin}, {count} outlines: mean IoU {np.mean(list(means.values())):.3f}, "
                f"least {means[worst]:.3f} ({worst})",
                flush=True,
            )


if __name__ == "__main__":
    main()
