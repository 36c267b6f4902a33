"""Protocols of open-vocabulary segmentation: names of categories, asked in 2D and in 3D.

In 2D (LERF, LangSplat) a relevancy map is rendered, and its masks and its maximum count. In 3D
(OpenGaussian) Gaussians are selected once, without a view, and rendered alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch

from refer3d.runs.progress import Progress
from refersplat.data import View
from refersplat.inference.trained_scene import TrainedScene
from refersplat.metrics import iou, mean
from refersplat.splats.render import frozen_blend

WINDOW = 30
"""Side in pixels of the photo of the square that smooths a map before its maximum is taken, as in
LangSplat's script."""
SHOWN, HALF = 10 / 255, 0.5
"""Opacities above which a pixel shows the selection: that of OpenGaussian's script, and a higher
one."""


class Query(NamedTuple):
    """Scores of a category's name in one view."""

    view: str
    sentence: str
    is_located: bool
    """Whether a maximum of the smoothed map lies in a box of the object."""
    iou_3d: float
    """IoU of the rendered selection, at opacity ``SHOWN``."""
    iou_3d_half: float
    """The same at ``HALF``."""


def score_queries(
    trained: TrainedScene, views: Sequence[View]
) -> tuple[dict[str, float], list[Query]]:
    """Asks for every object of the views by its sentences.

    The run's threshold selects the Gaussians; those of opacity are fixed. 2D masks are those of
    ``evaluate_views``.

    Returns:
        scores: ``loc_acc``, the share of queries that are located; ``3d_mIoU``, the mean IoU of the
            rendered selections; ``3d_acc@0.25`` and ``3d_acc@0.5``, the share with at least this;
            ``3d_mIoU_opacity_0.5``, the mean IoU at the higher opacity.
        queries: Each object and sentence in each view.
    """
    queries = list(_ask(trained, views))
    ious = [query.iou_3d for query in queries]
    scores = {
        "loc_acc": mean([query.is_located for query in queries]),
        "3d_mIoU": mean(ious),
        "3d_mIoU_opacity_0.5": mean([query.iou_3d_half for query in queries]),
        **{f"3d_acc@{least}": mean([value >= least for value in ious]) for least in (0.25, 0.5)},
    }
    return scores, queries


@torch.inference_mode()
def _ask(trained: TrainedScene, views: Sequence[View]) -> Iterator[Query]:
    sentences = list(dict.fromkeys(s for v in views for o in v.objects for s in o.sentences))
    selected = dict(zip(sentences, trained.select(trained.respond(sentences)), strict=True))
    with Progress("queries", len(views)) as progress:
        for view in views:
            blend = trained.blend(view.camera)
            window = max(1, round(WINDOW * view.camera.width / view.lens.width))
            for item in view.objects:
                truth, boxes = item.mask(), item.boxes()
                responses = trained.respond(item.sentences, view.camera)
                maps = trained.visible(responses, blend).cpu().numpy()
                rows = zip(item.sentences, maps, responses.results, strict=True)
                for sentence, relevancy, result in rows:
                    means_something = result is None or bool(result.groups)
                    is_located = means_something and locates(relevancy, boxes, window)
                    alone = frozen_blend(trained.gaussians, view.camera, selected[sentence])
                    opacity = 1 - alone.transmittance.cpu()
                    ious = (iou(opacity > least, truth) for least in (SHOWN, HALF))
                    yield Query(view.name, sentence, is_located, *ious)
            progress.advance()


def locates(
    relevancy: np.ndarray,  # [H, W] float32
    boxes: Sequence[tuple[int, int, int, int]],
    window: int = WINDOW,
) -> bool:
    """Whether a maximum of the smoothed map lies in a box (left, top, right, bottom)."""
    smooth = cv2.blur(relevancy, (window, window))
    rows, columns = np.nonzero(smooth == smooth.max())
    return any(
        bool(((columns >= x0) & (columns <= x1) & (rows >= y0) & (rows <= y1)).any())
        for x0, y0, x1, y1 in boxes
    )
