"""Datasets of referring sentences, one record each, and the reading of a scene's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from refer3d.runs.errors import InputError
from refersplat.data.annotations import Annotation, Dataset, Mask
from refersplat.data.images import in_threads
from refersplat.data.lerf_ovs import LERF_OVS
from refersplat.data.ref_lerf import REF_LERF

DATASETS: list[Dataset] = [REF_LERF, LERF_OVS]
"""The formats, tried in this order. To add one, append a record."""


def choose_dataset(folder: Path, key: str = "auto") -> Dataset:
    """The format of a scene's sentences by its key; ``auto`` detects it, else takes Ref-LERF's.

    Raises:
        InputError: There is no such format.
    """
    if key == "auto":
        return next((dataset for dataset in DATASETS if dataset.detects(folder)), REF_LERF)
    known = {dataset.key: dataset for dataset in DATASETS}
    if key not in known:
        raise InputError(
            f"--data.dataset: expected auto, {', '.join(known)}, got {key!r}; choose one"
        )
    return known[key]


def check_masks(
    annotations: Mapping[str, Sequence[Annotation]], allowed: Mapping[str, set[tuple[int, int]]]
) -> None:
    """Checks the masks' headers.

    Args:
        annotations: By view.
        allowed: Widths and heights that a view's masks may have.

    Raises:
        InputError: A mask cannot be read or has another size than its photo.
    """

    def check(item: tuple[str, Annotation, Mask]) -> None:
        view, annotation, mask = item
        size = mask.size()
        if size not in allowed[view]:
            expected = " or ".join(f"{w}x{h}" for w, h in sorted(allowed[view], reverse=True))
            raise InputError(
                f"{annotation.where}: expected a mask of {expected} pixels, as view {view}, got "
                f"{size[0]}x{size[1]} ({mask}); draw it at the image's size"
            )

    in_threads(
        check,
        [
            (view, annotation, mask)
            for view, of_view in annotations.items()
            if view in allowed  # a dataset may label more photos than have poses
            for annotation in of_view
            for mask in (annotation.mask, annotation.amodal)
            if mask is not None
        ],
    )
