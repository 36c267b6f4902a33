"""Draws masks of sentences: for each a mask, a heat map and a captioned overlay, or a video."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from refer3d.native.start import start_program
from refer3d.page import Picture, Table, write_page
from refer3d.runs.device import choose_device
from refer3d.runs.errors import InputError, run
from refer3d.runs.files import atomic_write
from refer3d.runs.options import to_mapping
from refer3d.runs.progress import Progress
from refer3d.text_encoder import check_text
from refersplat.command import read_options
from refersplat.config import Config
from refersplat.data import Scene, View, load_scene
from refersplat.data.names import ViewNames, digest, slug
from refersplat.inference.orbit import circle, draw_scene, draw_sentence, write_video
from refersplat.inference.overlay import add_caption, draw_heat, draw_mask, draw_overlay
from refersplat.inference.trained_scene import TrainedScene
from refersplat.rgb.poses import with_refined_poses
from refersplat.splats.checkpoints import trained_gaussians

log = logging.getLogger(__name__)

FOLDER, PAGE = "renders", "report.html"
NOTHING = "nothing"
"""Meaning of a sentence that means no object, in its trace."""
HIDDEN_SHARE = 0.1
"""Least hidden share of an object that the caption mentions."""


class Query(NamedTuple):
    """A sentence to draw in a view."""

    sentence: str
    stem: str
    """Stem of its files: object and sentence."""
    note: str
    """Note below the sentence in the picture."""


class Meaning(NamedTuple):
    """What a sentence means from some viewpoints."""

    trace: tuple[str, ...]
    views: list[str]


class Summary(NamedTuple):
    """What a sentence means in all views."""

    meanings: dict[str, Meaning]
    """By the names of the objects."""
    is_visible: list[bool]
    """In each view."""


def main(argv: Sequence[str]) -> None:
    """Runs the command ``render.py``."""
    draw(read_options(argv, "render"))


def draw(config: Config) -> None:
    """Writes pictures, or with ``config.render.orbit`` videos, under ``<out>/renders``.

    Raises:
        InputError: The run is not trained, or there is nothing to draw.
    """
    start_program("refersplat")
    out = Path(config.model_path)
    scene = with_refined_poses(load_scene(config.data), out)
    options = config.render
    for sentence in options.sentence:
        if not sentence.strip():
            raise InputError("--sentence: expected words, got nothing; write them in quotes")
        check_text(sentence)  # it becomes the name of a file, too
    if options.orbit:
        draw_orbits(config, scene)
        return
    views = choose_views(scene, options.views, options.split)
    trained = TrainedScene.load(out, config.device, config.text, config.train.threshold)
    name = "views" if options.views else options.split
    folder = out / FOLDER / (f"asked/{name}" if options.sentence else name)
    number = draw_views(
        trained, views, folder, options.sentence, options.explain, to_mapping(config)
    )
    if not number:
        raise InputError(
            f"{scene.path}: none of the {len(views)} views has a sentence; "
            'name one with --sentence "…", or draw others with --split all'
        )
    log.info("%d answers in %d views: %s", number, len(views), folder / PAGE)


def draw_orbits(config: Config, scene: Scene) -> None:
    """Writes a video for each sentence, or of the bare scene."""
    out, options = Path(config.model_path), config.render
    trained = None
    if options.sentence:
        trained = TrainedScene.load(out, config.device, config.text, config.train.threshold)
    gaussians = trained.gaussians if trained else trained_gaussians(out)
    gaussians = gaussians.to(choose_device(config.device))
    background = torch.full((3,), scene.train[0].background).to(gaussians.means)
    cameras = [view.camera for view in scene.train]
    cameras = circle(cameras, options.frames, gaussians.means.cpu())
    for sentence in dict.fromkeys(options.sentence) or ("",):
        if trained:
            name = f"{slug(sentence)}_{digest(sentence)}"
            pictures = draw_sentence(trained, sentence, cameras, background)
        else:
            name, pictures = "scene", draw_scene(gaussians, cameras, background)
        path = out / FOLDER / "orbit" / f"{name}.mp4"
        write_video(path, pictures, len(cameras))
        log.info("%s", path)


def choose_views(scene: Scene, names: Sequence[str], split: str) -> list[View]:
    """Returns the views of the given names, else those of a split.

    Raises:
        InputError: There is no such view, or none in the split.
    """
    if names:
        all_names = [view.name for view in scene.views]
        chosen = ViewNames(all_names, all_names).require(names, "--views")
        return [view for view in scene.views if view.name in chosen]
    views = {"test": scene.test, "train": scene.train, "all": scene.views}[split]
    if not views:
        raise InputError(
            f"--split {split}: {scene.path} has no such views ({scene.split}); "
            "draw others with --split all, or train with --eval"
        )
    return views


def queries_of(view: View, sentences: Sequence[str]) -> Iterator[Query]:
    """Yields a view's queries: the sentences given, else those about its own objects."""
    for sentence in dict.fromkeys(sentences):
        yield Query(sentence, f"{slug(sentence)}_{digest(sentence)}", view.name)
    if sentences:
        return
    for number, item in enumerate(view.objects, 1):
        for index, sentence in enumerate(item.sentences, 1):
            stem = f"{number:02d}_{slug(item.category or 'object')}_{index:02d}_{slug(sentence)}"
            yield Query(sentence, stem, f"{view.name} · {item.category or f'object {number}'}")


@torch.inference_mode()
def draw_views(
    trained: TrainedScene,
    views: Sequence[View],
    folder: Path,
    sentences: Sequence[str] = (),
    explain: bool = False,
    options: Mapping[str, Any] | None = None,
) -> int:
    """Draws each view's queries into a folder of its own, and a page of all, which shows the
    ``options``, too; returns their number.
    """
    rows: list[tuple[Any, ...]] = []
    summaries: dict[str, Summary] = {}
    with Progress("pictures", len(views)) as progress, ThreadPoolExecutor(2) as pool:
        for view in views:
            if queries := list(queries_of(view, sentences)):
                drawn = _draw_view(trained, view, queries, folder / view.name, pool, summaries)
                for query, future in zip(queries, drawn, strict=True):
                    picture, *answer = future.result()  # raises the writer's errors
                    rows.append((picture, query.note, query.sentence, *answer))
            progress.advance()
    if rows:
        title = "What is meant in orange, its hidden parts outlined in blue"
        columns = ("mask", "view", "sentence", "answer", "how it was found", "% of the view")
        page, heading = folder / PAGE, f"Answers in {len(views)} views"
        write_page(page, heading, [Table(title, columns, rows)], options or {})
    for sentence, summary in summaries.items():
        log.info("%s", "\n".join(summary_lines(sentence, summary, explain)))
    return len(rows)


def summary_lines(sentence: str, summary: Summary, explain: bool) -> Iterator[str]:
    """Yields what a sentence means, and with ``explain`` how that was found from each viewpoint."""
    meanings, visible = summary
    where = (
        f", visible in {sum(visible)} of {len(visible)} views" if set(meanings) - {NOTHING} else ""
    )
    yield f"{sentence} → {'; '.join(sorted(meanings))}{where}"
    for meaning in meanings.values() if explain else ():
        if len(meanings) > 1:
            yield f"  from {', '.join(meaning.views)}:"
        yield from (f"  {line}" for line in meaning.trace)


def _draw_view(
    trained: TrainedScene,
    view: View,
    queries: list[Query],
    folder: Path,
    pool: ThreadPoolExecutor,
    summaries: dict[str, Summary],
) -> list[Future[tuple[Picture, str, str, float]]]:
    """Draws one view; adds each sentence's meaning and visibility there to ``summaries``."""
    image = view.image()
    responses = trained.respond([query.sentence for query in queries], view.camera)
    visible = trained.visible(responses, trained.blend(view.camera))
    amodal = trained.amodal(responses, view.camera)
    futures = []
    for row, (query, threshold) in enumerate(zip(queries, responses.thresholds, strict=True)):
        result = responses.results[row]
        trace = result.trace if result else ("the field alone responds",)
        meaning = trace[-1].rpartition("→ ")[2]
        with atomic_write(folder / f"{query.stem}.trace.txt") as file:
            file.write("".join(f"{line}\n" for line in trace).encode())
        summary = summaries.setdefault(query.sentence, Summary({}, []))
        summary.meanings.setdefault(meaning, Meaning(trace, [])).views.append(view.name)
        summary.is_visible.append(bool((visible[row] >= threshold).any()))
        arguments = (folder, query, meaning, trace, image, visible[row], amodal[row], threshold)
        futures.append(pool.submit(_write, *arguments))
    return futures


def _write(
    folder: Path,
    query: Query,
    meaning: str,
    trace: tuple[str, ...],
    image: Tensor,  # [3, H, W]
    visible: Tensor,  # [H, W]
    amodal: Tensor,  # [H, W]
    threshold: float,
) -> tuple[Picture, str, str, float]:
    """Writes the pictures of a query; returns its row of the page: the overlay, the meaning, the
    trace, and the mask's share in percent.
    """
    mask, whole = visible >= threshold, amodal >= threshold
    note = f"{query.note} → {meaning}"
    if meaning != NOTHING and not whole.any():
        note += " · out of sight"
    if (whole & ~mask).sum() > HIDDEN_SHARE * whole.sum():
        note += " · blue: hidden behind others"
    marked = draw_overlay(image, mask, whole)
    overlay = add_caption(marked, query.sentence, note)
    for kind, picture in (
        ("mask.png", Image.fromarray(draw_mask(mask))),
        ("through.png", Image.fromarray(draw_mask(whole))),
        ("heat.png", Image.fromarray(draw_heat(visible))),
        ("overlay.jpg", overlay),
    ):
        is_photo = kind.endswith("jpg")
        options = {"quality": 92} if is_photo else {"compress_level": 4}
        with atomic_write(folder / f"{query.stem}.{kind}") as file:
            picture.save(file, format="JPEG" if is_photo else "PNG", **options)
    return Picture.of(marked), meaning, "\n".join(trace), 100 * float(mask.float().mean())


if __name__ == "__main__":
    run(main)
