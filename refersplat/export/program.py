"""The program ``refersplat export``."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from refer3d.native.start import start_program
from refer3d.runs.errors import InputError
from refer3d.runs.files import atomic_write
from refer3d.runs.folder import RunFolder
from refer3d.runs.progress import Progress
from refer3d.runs.records import first_few
from refersplat.cameras import Camera
from refersplat.config import Config
from refersplat.data.images import list_files
from refersplat.data.names import ViewNames, view_names
from refersplat.export.coco import annotation
from refersplat.export.options import ExportConfig
from refersplat.inference.trained_scene import TrainedScene
from refersplat.photos.world import find_up
from refersplat.splats.checkpoints import load_gaussians, trained_gaussians
from refersplat.splats.formats import WRITERS, save_gaussians

log = logging.getLogger(__name__)


def export(config: ExportConfig) -> None:
    """Writes the file or folder that ``config.output`` names.

    Raises:
        InputError: The run lacks what is asked for, a sentence means nothing in the scene, or the
            ending of the file is unknown.
    """
    start_program("refersplat")
    output = Path(config.output).expanduser()
    is_cloud = output.name.lower().endswith(tuple(WRITERS))
    if not is_cloud and output.suffix not in ("", ".json"):
        endings = ", ".join([*WRITERS, ".json"])
        remedy = "choose one"
        if output.suffix.lower() == ".sog":  # no Python package that is kept writes it
            ply = output.with_suffix(".ply")
            remedy = f"write {ply}, then run npx @playcanvas/splat-transform {ply} {output}"
        raise InputError(
            f"-o: expected a file that ends in {endings}, or a folder for masks as PNG, got "
            f"{output.name!r}; {remedy}"
        )
    if is_cloud:
        _export_gaussians(config, output)
    else:
        _export_masks(config, output)


def _export_gaussians(config: ExportConfig, output: Path) -> None:
    source, up = Path(config.model_path).expanduser(), None
    if source.is_file():
        if config.sentence:
            raise InputError(
                f"--sentence: expected the folder of a run with -m, got the file {source}, which "
                "has no language; name the run's folder"
            )
        gaussians = load_gaussians(source)
    elif not config.sentence:
        gaussians = trained_gaussians(source)
    else:
        trained = TrainedScene.load(source, config.device)
        gaussians, up = trained.gaussians, _up(trained)
        chosen = _select(trained, config)
        gaussians = gaussians.select(chosen if config.selection == "keep" else ~chosen)
    if gaussians.count == 0:
        raise InputError(f"{config.model_path}: no Gaussian is left to write; change --selection")
    save_gaussians(gaussians, output, up)
    size = output.stat().st_size / 2**20
    log.info("%s: %d Gaussians, %.1f MiB", output, gaussians.count, size)


def _export_masks(config: ExportConfig, output: Path) -> None:
    if not config.sentence:
        raise InputError('--sentence: expected what to mask, got nothing; add --sentence "…"')
    trained = TrainedScene.load(Path(config.model_path).expanduser(), config.device)
    names = sorted(trained.cameras)
    if config.views:
        chosen = ViewNames(names, names).require(config.views, "--views")
        names = [name for name in names if name in chosen]
    cameras = {name: trained.cameras[name] for name in names}
    visible = Counter[int]()  # views in which each sentence has a mask
    if output.suffix == ".json":
        files = _photos(Path(config.model_path).expanduser())
        document = coco(trained, config.sentence, cameras, config.amodal, files)
        visible.update(entry["category_id"] - 1 for entry in document["annotations"])
        with atomic_write(output) as file:
            file.write(json.dumps(document).encode())
    else:
        for name, index, mask in _masks(trained, config.sentence, cameras, config.amodal):
            visible[index] += bool(mask.any())
            with atomic_write(output / f"{name}_{index + 1:02d}.png") as file:
                Image.fromarray(mask.astype(np.uint8) * 255).save(file, format="PNG")
        with atomic_write(output / "sentences.txt") as file:
            lines = (f"{index:02d} {text}\n" for index, text in enumerate(config.sentence, 1))
            file.write("".join(lines).encode())
    for index, sentence in enumerate(config.sentence):
        log.info("%s: a mask in %d of %d views", sentence, visible[index], len(cameras))
    log.info("%s", output)


def coco(
    trained: TrainedScene,
    sentences: Sequence[str],
    cameras: dict[str, Camera],
    amodal: bool = False,
    files: Mapping[str, str] | None = None,
) -> dict[str, list]:
    """Masks of sentences in views as a COCO document; each sentence is a category.

    Args:
        trained: The scene.
        sentences: What to mask. Where nothing of it is visible there is no entry.
        cameras: By the views' names.
        amodal: Include parts that other objects hide.
        files: The photos' files by the views' names; without, the names stand for them.
    """
    numbers = {name: index for index, name in enumerate(cameras, 1)}
    masks = (item for item in _masks(trained, sentences, cameras, amodal) if item[2].any())
    annotations = [
        annotation(number, numbers[name], index + 1, mask)
        for number, (name, index, mask) in enumerate(masks, 1)
    ]
    images = [
        {
            "id": numbers[name],
            "file_name": (files or {}).get(name, name),
            "width": camera.width,
            "height": camera.height,
        }
        for name, camera in cameras.items()
    ]
    categories = [{"id": index, "name": text} for index, text in enumerate(sentences, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _photos(run: Path) -> dict[str, str]:
    """The photos' files by the views' names; empty where they have moved away."""
    with suppress(InputError):
        data = RunFolder(run, Config).config().data
        files = list_files(Path(data.scene, data.images))
        return dict(zip(view_names(files), files, strict=True))
    return {}


@torch.inference_mode()
def _masks(
    trained: TrainedScene, sentences: Sequence[str], cameras: dict[str, Camera], amodal: bool
) -> Iterator[tuple[str, int, np.ndarray]]:  # view, index of the sentence, [H, W] bool
    with Progress("masks", len(cameras)) as progress:
        for name, camera in cameras.items():
            for index, sentence in enumerate(sentences):
                yield name, index, trained.find(sentence, camera, amodal).mask.cpu().numpy()
            progress.advance()


def _select(trained: TrainedScene, config: ExportConfig) -> Tensor:  # [N] bool
    camera = None
    if config.view:
        names = sorted(trained.cameras)
        (name,) = ViewNames(names, names).require([config.view], "--view")
        camera = trained.cameras[name]
    with torch.inference_mode():
        selected = trained.select(trained.respond(config.sentence, camera))
    for sentence, row in zip(config.sentence, selected, strict=True):
        if not row.any():
            raise InputError(
                f"--sentence: {sentence!r} means nothing in this scene; ask for something else"
                + (f", such as {first_few(trained.groups)}" if trained.groups else "")
            )
    return selected.any(dim=0)


def _up(trained: TrainedScene) -> Tensor | None:
    """Up by the photos' cameras; see :func:`refersplat.photos.world.find_up`."""
    cameras = [camera.world_to_camera[:3, :3] for camera in trained.cameras.values()]
    return torch.from_numpy(find_up(torch.stack(cameras).cpu().double().numpy()))
