"""The split of a scene's views into training and test views."""

from __future__ import annotations

from pathlib import Path

from refer3d.runs.errors import InputError
from refer3d.runs.records import as_kind, read_json, take
from refersplat.config import DataConfig
from refersplat.data.annotations import Dataset
from refersplat.data.names import ViewNames

EVERY = 8
"""Without any list, every 8th view is a test view, as in Mip-NeRF 360."""


def choose_test_views(
    config: DataConfig,
    dataset: Dataset,
    names: ViewNames,
    flagged: set[str],
    warnings: list[str],
) -> tuple[set[str], str]:
    """Chooses the test views, and says in words who chose them.

    The first source that exists decides: the option, the dataset's files or else those of the
    poses, the scene's ``meta.json``, the dataset's published list, every 8th view.

    Args:
        config: Scene, ``--eval`` and ``--data.test_views``.
        dataset: Format of the scene's sentences.
        names: All views.
        flagged: Test views by the files of poses.
        warnings: Receives options and lists without effect.

    Raises:
        InputError: A list names a view that does not exist, or no view is left for training.
    """
    if not config.eval:
        if config.test_views:
            warnings.append("--data.test_views has no effect without --eval: all views train")
        return set(), "all views train, without --eval"
    path = Path(config.scene)
    meta = path / "meta.json"
    listed = _meta_test_views(meta)
    scene = path.resolve().name
    frames = dataset.test_frames.get(scene.lower(), ())
    if config.test_views:
        test, source = names.require(config.test_views, "--data.test_views"), "--data.test_views"
    elif by_files := dataset.test_views(path, names) or flagged:
        test, source = by_files, "the scene's own test files"
    elif listed:
        test, source = names.require(listed, f"{meta}: test_views"), "meta.json"
    elif frames and not (missing := [n for n in frames if not names.find(str(n))]):
        test, source = names.require(frames, scene), f"{dataset.name}'s list for {scene}"
    else:
        test, source = set(sorted(names.names)[::EVERY]), f"every {EVERY}th view"
        if frames:
            warnings.append(
                f"{path}: {len(missing)} of {len(frames)} test frames of {dataset.name}'s {scene} "
                f"are not there ({missing[0]} …), so every {EVERY}th view is held out instead"
            )
    if len(test) == len(names.names):
        raise InputError(
            f"{path}: all {len(test)} views are test views (by {source}), none is left for "
            "training; name fewer with --data.test_views"
        )
    return test, source


def _meta_test_views(meta: Path) -> list[str | int]:
    """The field ``test_views`` of ``meta.json``; empty without either."""
    record = read_json(meta, dict) if meta.is_file() else {}
    is_given = record.get("test_views") is not None
    views = take(record, "test_views", list, str(meta)) if is_given else []
    for index, view in enumerate(views):
        if not isinstance(view, str):
            as_kind(view, int, f"{meta}: test_views[{index}]")
    return views
