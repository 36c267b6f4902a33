"""Draws what a run answers: a mask, a heat map and a captioned overlay for each sentence."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from refer3d.native.start import start_program
from refer3d.runs.device import choose_device
from refer3d.runs.errors import InputError, run
from refer3d.runs.files import atomic_write
from refer3d.runs.progress import Progress
from refer3d.text_encoder import check_text
from refersplat.command import read_options
from refersplat.config import Config
from refersplat.data import Scene, View, load_scene
from refersplat.data.names import ViewNames
from refersplat.inference.orbit import film
from refersplat.inference.overlay import add_caption, draw_heat, draw_mask, draw_overlay
from refersplat.inference.trained_scene import TrainedScene
from refersplat.splats.checkpoints import trained_gaussians

log = logging.getLogger(__name__)

FOLDER = "renders"
LONGEST_SLUG = 40
HIDDEN_SHARE = 0.1
"""Of an object, that must be hidden for the picture to say so."""


class Question(NamedTuple):
    """A sentence to be drawn in a view."""

    sentence: str
    stem: str
    """Of its files: object and sentence."""
    note: str
    """Below the sentence in the picture."""


def main(argv: Sequence[str]) -> None:
    """The command."""
    draw(read_options(argv, "render"))


def draw(config: Config) -> None:
    """Writes pictures, or with ``config.render.orbit`` videos, under ``<out>/renders``.

    Raises:
        InputError: The run is not trained, or there is nothing to draw.
    """
    start_program("refersplat")
    out = Path(config.model_path)
    scene = load_scene(config.data)
    options = config.render
    if any(not sentence.strip() for sentence in options.sentence):
        raise InputError("--sentence: expected words, got nothing; write them in quotes")
    for sentence in options.sentence:
        check_text(sentence)  # which becomes the name of a file, too
    if options.orbit:
        draw_orbits(config, scene)
        return
    views = choose_views(scene, options.views, options.split)
    trained = TrainedScene.load(out, config.device, config.text, config.train.threshold)
    name = "views" if options.views else options.split
    folder = out / FOLDER / (f"asked/{name}" if options.sentence else name)
    number = draw_views(trained, views, folder, questions_of(options.sentence))
    if not number:
        raise InputError(
            f"{scene.path}: none of the {len(views)} views has a sentence; "
            'ask with --sentence "…", or draw others with --split all'
        )
    log.info("%d sentences drawn in %d views: %s", number, len(views), folder)


def draw_orbits(config: Config, scene: Scene) -> None:
    """A video for each sentence, or of the bare scene."""
    out, options = Path(config.model_path), config.render
    cameras = [view.camera for view in scene.train]
    background = torch.full((3,), scene.train[0].background)
    if not options.sentence:
        path = out / FOLDER / "orbit" / "scene.mp4"
        gaussians = trained_gaussians(out).to(choose_device(config.device))
        film(path, gaussians, cameras, options.frames, background)
        log.info("%s", path)
        return
    trained = TrainedScene.load(out, config.device, config.text, config.train.threshold)
    for sentence in dict.fromkeys(options.sentence):
        path = out / FOLDER / "orbit" / f"{slug(sentence)}_{digest(sentence)}.mp4"
        film(path, trained.gaussians, cameras, options.frames, background, trained, sentence)
        log.info("%s", path)


def choose_views(scene: Scene, names: Sequence[str], split: str) -> list[View]:
    """The views that are asked for by name, or a split.

    Raises:
        InputError: There is no such view, or none in the split.
    """
    if names:
        known = [view.name for view in scene.views]
        chosen = ViewNames(known, known).require(names, "--views")
        return [view for view in scene.views if view.name in chosen]
    views = {"test": scene.test, "train": scene.train, "all": scene.views}[split]
    if not views:
        raise InputError(
            f"--split {split}: {scene.path} has no such views ({scene.split}); "
            "draw others with --split all, or train with --eval"
        )
    return views


def questions_of(sentences: Sequence[str]) -> Callable[[View], list[Question]]:
    """What to draw in a view: the sentences given, else those of the view's own objects."""

    def own(view: View) -> Iterator[Question]:
        for number, item in enumerate(view.objects, 1):
            for index, sentence in enumerate(item.sentences, 1):
                stem = (
                    f"{number:02d}_{slug(item.category or 'object')}_{index:02d}_{slug(sentence)}"
                )
                yield Question(
                    sentence, stem, f"{view.name} · {item.category or f'object {number}'}"
                )

    def given(view: View) -> Iterator[Question]:
        for sentence in dict.fromkeys(sentences):
            yield Question(sentence, f"{slug(sentence)}_{digest(sentence)}", view.name)

    return lambda view: list(given(view) if sentences else own(view))


@torch.inference_mode()
def draw_views(
    trained: TrainedScene,
    views: Sequence[View],
    folder: Path,
    questions: Callable[[View], list[Question]],
) -> int:
    """Draws each view's questions into a folder of its own; returns how many there were."""
    number, found = 0, {}
    with Progress("pictures", len(views)) as progress, ThreadPoolExecutor(2) as pool:
        for view in views:
            asked = questions(view)
            if asked:
                writing = _draw_view(trained, view, asked, folder / view.name, pool, found)
                for future in writing:
                    future.result()  # raises what the writing raised
            number += len(asked)
            progress.advance()
    for sentence, (group, is_seen) in found.items():
        who = "the field alone: like no training sentence" if group < 0 else f"group {group}"
        log.info("%s: in %d of %d views (%s)", sentence, sum(is_seen), len(is_seen), who)
    return number


def _draw_view(
    trained: TrainedScene,
    view: View,
    asked: list[Question],
    folder: Path,
    pool: ThreadPoolExecutor,
    found: dict[str, tuple[int, list[bool]]],
) -> list[Future[None]]:
    """Draws one view; notes in ``found`` each sentence's group, and whether it is seen there."""
    image, blend = view.image(), trained.view(view.camera)
    answers = trained.respond([question.sentence for question in asked])
    seen, through = trained.seen(answers, blend), trained.amodal(answers, view.camera)
    for question, group, heat, threshold in zip(
        asked, answers.groups, seen, answers.thresholds, strict=True
    ):
        _, is_seen = found.setdefault(question.sentence, (group, []))
        is_seen.append(bool((heat >= threshold).any()))
    return [
        pool.submit(_write, folder, question, image, *rest)
        for question, *rest in zip(asked, seen, through, answers.thresholds, strict=True)
    ]


def _write(
    folder: Path,
    question: Question,
    image: Tensor,  # [3, H, W]
    seen: Tensor,  # [H, W]
    through: Tensor,  # [H, W]
    threshold: float,
) -> None:
    mask, whole = seen >= threshold, through >= threshold
    note = question.note
    if (whole & ~mask).sum() > HIDDEN_SHARE * whole.sum():
        note += " · blue: hidden behind others"
    overlay = add_caption(draw_overlay(image, mask, whole), question.sentence, note)
    for kind, picture in (
        ("mask.png", Image.fromarray(draw_mask(mask))),
        ("through.png", Image.fromarray(draw_mask(whole))),
        ("heat.png", Image.fromarray(draw_heat(seen))),
        ("overlay.jpg", overlay),
    ):
        is_photo = kind.endswith("jpg")
        options = {"quality": 92} if is_photo else {"compress_level": 4}
        with atomic_write(folder / f"{question.stem}.{kind}") as file:
            picture.save(file, format="JPEG" if is_photo else "PNG", **options)


def slug(text: str) -> str:
    """Text as part of a file name: its words, in any script, joined by hyphens."""
    words = re.sub(r"[\W_]+", "-", text.lower()).strip("-")
    return words[:LONGEST_SLUG].rstrip("-") or "sentence"


def digest(text: str) -> str:
    """Tells sentences apart whose slugs are the same."""
    return hashlib.sha256(text.encode()).hexdigest()[:6]


if __name__ == "__main__":
    run(main)
