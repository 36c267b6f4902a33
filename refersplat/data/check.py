"""Describes a scene without training: refersplat check SCENE [-r 2]."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence

from refer3d.runs.errors import run
from refersplat.command import read_check
from refersplat.config import DataConfig
from refersplat.data.images import decode, in_threads
from refersplat.data.scene import Scene, load_scene
from refersplat.data.views import View


def describe(scene: Scene) -> str:
    """A page about the scene; decodes every image and mask.

    Raises:
        InputError: An image or mask is damaged.
    """
    in_threads(lambda view: decode(view.path), scene.views)
    sizes = Counter(f"{view.camera.width}x{view.camera.height}" for view in scene.views)
    lenses = {view.lens for view in scene.views}
    num_distorted = sum(view.lens.is_distorted for view in scene.views)
    rows = [
        ("scene", str(scene.path)),
        ("views", f"{len(scene.views)}, {scene.views[0].name} … {scene.views[-1].name}"),
        ("with --eval", f"{len(scene.train)} train, {len(scene.test)} test (by {scene.split}): "
         + ", ".join(view.name for view in scene.test)),
        ("images", ", ".join(f"{size} ({count})" for size, count in sizes.most_common())),
        ("lenses", f"{len(lenses)}; {num_distorted} photos are undistorted"),
        ("sentences", f"{sum(len(o.sentences) for v in scene.views for o in v.objects)}, as in "
         f"{scene.dataset.name}"),
        ("points", f"{len(scene.points[0])}" if scene.points else "none: starts from random ones"),
        ("extent", f"{scene.extent:.4g}"),
    ]  # fmt: skip
    lines = [f"{name:<12} {text}" for name, text in rows]
    lines += ["", *_objects(scene), "", f"{'warnings':<12} {len(scene.warnings) or 'none'}"]
    lines += [f"  {warning}" for warning in scene.warnings]
    return "\n".join(lines)


def _objects(scene: Scene) -> list[str]:
    """A table of categories: their views, their sentences and the share of their masks."""
    if not any(view.objects for view in scene.views):
        return [f"{'objects':<12} none"]
    coverage = dict(zip(scene.views, in_threads(_coverage, scene.views), strict=True))
    categories = sorted({o.category or "(none)" for v in scene.views for o in v.objects})
    width = max(map(len, [*categories, "object"]))
    lines = [f"{'object':<{width}}  {'train: views sentences mask empty':>40}"
             f"  {'test: views sentences mask empty':>40}"]  # fmt: skip
    for category in [*categories, None]:
        cells = [_cell(views, category, coverage) for views in (scene.train, scene.test)]
        lines.append(f"{category or 'all':<{width}}  {cells[0]:>40}  {cells[1]:>40}")
    return lines


def _cell(views: Sequence[View], category: str | None, coverage: dict[View, list[float]]) -> str:
    rows = [
        (view, item.sentences, share)
        for view in views
        for item, share in zip(view.objects, coverage[view], strict=True)
        if category in (None, item.category or "(none)")
    ]
    num_views = len({view for view, _, _ in rows})
    sentences = {sentence for _, texts, _ in rows for sentence in texts}
    shares = [share for _, _, share in rows]
    mean = f"{100 * sum(shares) / len(shares):.2f} %" if shares else "-"
    return f"{num_views:>6} {len(sentences):>9} {mean:>8} {shares.count(0.0):>5}"


def _coverage(view: View) -> list[float]:
    """Share of the image that each object's mask covers."""
    return [float(item.mask().float().mean()) for item in view.objects]


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    report(read_check(argv))


def report(config: DataConfig) -> None:
    """Prints the page."""
    sys.stdout.write(f"{describe(load_scene(config))}\n")


if __name__ == "__main__":
    run(main)
