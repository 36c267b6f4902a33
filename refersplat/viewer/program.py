"""The program ``refersplat view``: Gaussians, answers, labels and cameras in the browser."""

from __future__ import annotations

import functools
import html
import logging
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from refer3d.native.start import start_program
from refer3d.runs.device import choose_device
from refer3d.runs.errors import InputError
from refer3d.runs.folder import RunFolder
from refer3d.runs.options import override
from refer3d.viewer import add_question_form, serve, start_server, write_page
from refersplat.cameras import Camera
from refersplat.config import Config
from refersplat.data import Scene, load_scene
from refersplat.inference.overlay import HIDDEN, to_pixels
from refersplat.inference.trained_scene import TrainedScene
from refersplat.masks.candidates import Sam
from refersplat.masks.pretrained import Checkpoint
from refersplat.referring.state import RESULT_FILE
from refersplat.splats.checkpoints import trained_gaussians
from refersplat.viewer.labelling import Labelling
from refersplat.viewer.options import ViewConfig
from refersplat.viewer.splats import MODES, SplatView
from refersplat.viewer.windows import camera_of, field_of_view, first_place, go_to, pose_of, turn

log = logging.getLogger(__name__)

_THUMBNAIL = 240
"""Width of the photos beside the cameras, in pixels."""
_ORBIT_SECONDS, _ORBIT_FRAMES = 20.0, 20.0
"""Length of a turn, and frames per second."""


def view(config: ViewConfig) -> None:
    """Opens the window, or writes a page.

    Raises:
        InputError: The run has no Gaussians, a sentence is asked before it is trained on any, SAM
            cannot be loaded, viser is not installed, or the port is taken.
    """
    start_program("refersplat")
    run = Path(config.model_path).expanduser()
    trained = None
    if (run / RESULT_FILE).is_file():
        trained = TrainedScene.load(run, config.device)
    elif config.sentence:
        raise InputError(
            f"--sentence: expected a run that was trained on sentences, got {run}; label objects "
            "in the browser, or add json/ and gt_mask/, and run train.py --resume"
        )
    scene = _scene_of(run, config.scene)
    sam = None
    if config.sam:
        sam = Sam(Checkpoint.named("--sam", config.sam), choose_device(config.device))
    if trained:
        splats = SplatView(trained.gaussians, trained.cameras, trained, sam)
    elif scene:
        gaussians = trained_gaussians(run).to(choose_device(config.device))
        splats = SplatView(gaussians, {view.name: view.camera for view in scene.views}, sam=sam)
    else:
        raise InputError(f"-s: {run} has no cameras yet; name the folder of its scene")
    server = start_server(config.server, run.name)
    server.scene.set_up_direction(tuple(splats.up))
    place = first_place(splats.cameras, splats.gaussians.means)
    server.initial_camera.position, server.initial_camera.look_at = place
    if config.server.export:
        colors, opacities = splats.colors, splats.opacities
        if config.sentence:
            responses, selected = splats.answer(config.sentence, None)
            colors, opacities = splats.paint(selected, "mark", responses)
        _add(server.scene, splats, colors, opacities)
        write_page(server, config.server.export)
        server.stop()
        return
    server.on_client_connect(functools.partial(furnish, server, splats, scene, config.sentence))
    serve(server, config.server)


def _scene_of(run: Path, folder: str) -> Scene | None:
    """The run's scene, or None, with a warning, where it has moved away."""
    data = RunFolder(run, Config).config().data
    try:
        return load_scene(override(data, {"scene": folder}) if folder else data)
    except InputError as error:
        if folder:
            raise
        log.warning("%s; without photos nothing can be labelled", error)
        return None


def _add(scene: Any, splats: SplatView, colors: np.ndarray, opacities: np.ndarray) -> Any:
    arrays = (splats.means, splats.covariances, colors, opacities)
    return scene.add_gaussian_splats("/gaussians", *arrays)


def furnish(
    server: Any, splats: SplatView, scene: Scene | None, sentence: str, client: Any
) -> None:
    """Gives a client a scene and controls of its own: several at once do not disturb each other.

    Args:
        server: viser's server.
        splats: The Gaussians, which all clients share.
        scene: Photos to label; without, nothing can be labelled.
        sentence: Sentence to begin with.
        client: A client of viser's.
    """
    gaussians = _add(client.scene, splats, splats.colors, splats.opacities)

    def show(colors: np.ndarray, opacities: np.ndarray) -> None:
        with client.atomic():
            gaussians.set_gaussians(
                centers=splats.means,
                covariances=splats.covariances,
                rgbs=colors,
                opacities=opacities,
            )

    def show_label(selected: np.ndarray) -> None:
        is_any = selected.any()
        show(*(splats.paint(selected, "mark") if is_any else (splats.colors, splats.opacities)))

    tabs = client.gui.add_tab_group()
    if splats.trained is not None:
        with tabs.add_tab("Ask"):
            _add_questions(splats, sentence, client, show)
    if scene is not None:
        with tabs.add_tab("Label"):
            Labelling(splats, scene, client, show_label)
    with tabs.add_tab("Cameras"):
        _add_cameras(server, splats, scene, client)


def _add_questions(splats: SplatView, sentence: str, client: Any, show: Any) -> None:
    def draw(sentence: str) -> str:
        responses, selected = splats.answer(sentence, camera_of(client.camera))
        show(*splats.paint(selected, mode.value, responses))
        (result,) = responses.results
        trace = result.trace if result else ("the field alone responds",)
        steps = "\n".join(f"* {html.escape(line)}" for line in trace)
        return f"**{html.escape(sentence)}**\n\n{int(selected.sum())} Gaussians\n\n{steps}"

    mode = client.gui.add_dropdown("Show", MODES)
    ask = add_question_form(client, draw, splats.objects)
    mode.on_update(lambda _: ask())
    if sentence:
        ask(sentence)


def _add_cameras(server: Any, splats: SplatView, scene: Scene | None, client: Any) -> None:
    names = sorted(splats.cameras)
    go = client.gui.add_dropdown("Camera", ("", *names))
    is_shown = client.gui.add_checkbox("Show cameras", False)
    orbit = client.gui.add_checkbox("Orbit", False)
    photo = client.gui.add_image(np.zeros((2, 2, 3), np.uint8), label="Photo", visible=False)
    photos = {view.name: view for view in scene.views} if scene else {}
    frustums: list[Any] = []

    @go.on_update
    def _(_: Any) -> None:
        if go.value:
            go_to(client, splats.cameras[go.value])
        photo.visible = go.value in photos
        if go.value in photos:
            photo.image = to_pixels(photos[go.value].image())

    @is_shown.on_update
    def _(_: Any) -> None:
        if not frustums:
            for name in names:
                image = _thumbnail(photos[name].image()) if name in photos else None
                frustums.append(_add_frustum(client, splats.cameras[name], name, image, go))
        for frustum in frustums:
            frustum.visible = is_shown.value

    def fly() -> None:
        while orbit.value and client.client_id in server.get_clients():
            turn(client, splats.up, 2 * np.pi / _ORBIT_SECONDS / _ORBIT_FRAMES)
            time.sleep(1 / _ORBIT_FRAMES)

    orbit.on_update(lambda _: threading.Thread(target=fly, daemon=True).start())


def _thumbnail(image: torch.Tensor) -> np.ndarray:  # [3, H, W] -> [h, w, 3] uint8
    height = round(_THUMBNAIL * image.shape[1] / image.shape[2])
    return to_pixels(F.interpolate(image[None], (height, _THUMBNAIL), mode="area")[0])


def _add_frustum(client: Any, camera: Camera, name: str, image: np.ndarray | None, go: Any) -> Any:
    """A camera with its photo that takes the window to its place when it is clicked."""
    frustum = client.scene.add_camera_frustum(
        f"/cameras/{name}",
        field_of_view(camera),
        camera.width / camera.height,
        color=HIDDEN,
        image=image,
        **pose_of(camera),
    )

    @frustum.on_click
    def _(_: Any) -> None:
        go.value = name

    return frustum
