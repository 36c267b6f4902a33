"""The program ``refersplat view``: Gaussians, answers and cameras in the browser."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from refer3d.native.start import start_program
from refer3d.viewer import add_question_form, serve, start_server, write_page
from refersplat.cameras import Camera, look_at_point
from refersplat.inference.overlay import HIDDEN, MARK
from refersplat.inference.trained_scene import Responses, TrainedScene
from refersplat.photos.world import find_up
from refersplat.splats.formats import SH_C0
from refersplat.viewer.options import ViewConfig

MODES = ("mark", "alone", "without", "heat map")
_HEIGHT = 240  # pixels of the window as a camera, which only tells the viewpoint


class SplatView:
    """Colours and opacities of a scene's Gaussians for answers."""

    def __init__(self, trained: TrainedScene) -> None:
        """Takes a scene; computes what no answer changes."""
        self.trained = trained
        gaussians = trained.gaussians
        axes = (gaussians.rotations * gaussians.scales[:, None, :]).cpu()
        self.means = gaussians.means.cpu().numpy()
        self.covariances = (axes @ axes.mT).numpy()
        colors = SH_C0 * gaussians.sh_dc[:, 0] + 0.5
        self.colors = colors.clamp(0, 1).cpu().numpy()
        self.opacities = gaussians.opacities[:, None].cpu().numpy()
        rotations = [camera.world_to_camera[:3, :3] for camera in trained.cameras.values()]
        self.up = find_up(torch.stack(rotations).cpu().double().numpy())

    @property
    def objects(self) -> list[str]:
        """One training sentence per group, the shortest, as examples."""
        language = self.trained.answerer.language
        if language is None:
            return []
        shortest: dict[int, str] = {}
        for sentence, group in language.group_of.items():
            if group not in shortest or len(sentence) < len(shortest[group]):
                shortest[group] = sentence
        return sorted(shortest.values())

    @torch.inference_mode()
    def answer(self, sentence: str, camera: Camera | None) -> tuple[Responses, np.ndarray]:
        """The responses to a sentence, and the Gaussians [N] bool that it means."""
        responses = self.trained.respond([sentence], camera)
        return responses, self.trained.select(responses)[0].cpu().numpy()

    def paint(
        self, responses: Responses, selected: np.ndarray, mode: str
    ) -> tuple[np.ndarray, np.ndarray]:  # [N, 3] and [N, 1] in 0..1
        """Colours and opacities that show an answer; see :data:`MODES`."""
        if mode == "alone":
            return self.colors, self.opacities * selected[:, None]
        if mode == "without":
            return self.colors, self.opacities * ~selected[:, None]
        if mode == "heat map":
            heat = (responses.logits[0, :, None].sigmoid().cpu().numpy() * 255).astype(np.uint8)
            return cv2.applyColorMap(heat, cv2.COLORMAP_INFERNO)[:, 0, ::-1] / 255, self.opacities
        gray = self.colors.mean(axis=1, keepdims=True)
        around = 0.55 * (0.5 * self.colors + 0.5 * gray)
        marked = 0.6 * self.colors + 0.4 * np.array(MARK) / 255
        return np.where(selected[:, None], marked, around), self.opacities


def view(config: ViewConfig) -> None:
    """Opens the window, or writes a page.

    Raises:
        InputError: The run is not trained, viser is not installed, or the port is taken.
    """
    start_program("refersplat")
    trained = TrainedScene.load(Path(config.model_path).expanduser(), config.device)
    splats = SplatView(trained)
    server = start_server(config.server, Path(config.model_path).name)
    server.scene.set_up_direction(tuple(splats.up))
    place = _first_place(trained)
    server.initial_camera.position, server.initial_camera.look_at = place
    if config.server.export:
        colors, opacities = splats.colors, splats.opacities
        if config.sentence:
            colors, opacities = splats.paint(*splats.answer(config.sentence, None), "mark")
        _add(server.scene, splats, colors, opacities)
        write_page(server, config.server.export)
        server.stop()
        return
    server.on_client_connect(functools.partial(_furnish, splats, config.sentence))
    serve(server, config.server)


def _add(scene: Any, splats: SplatView, colors: np.ndarray, opacities: np.ndarray) -> Any:
    arrays = (splats.means, splats.covariances, colors, opacities)
    return scene.add_gaussian_splats("/gaussians", *arrays)


def _furnish(splats: SplatView, sentence: str, client: Any) -> None:
    """Gives a client a scene and controls of its own: several at once do not disturb each other."""
    gaussians = _add(client.scene, splats, splats.colors, splats.opacities)
    mode = client.gui.add_dropdown("Show", MODES)

    def draw(sentence: str) -> str:
        responses, selected = splats.answer(sentence, _camera_of(client))
        colors, opacities = splats.paint(responses, selected, mode.value)
        with client.atomic():
            gaussians.set_gaussians(
                centers=splats.means,
                covariances=splats.covariances,
                rgbs=colors,
                opacities=opacities,
            )
        (result,) = responses.results
        trace = result.trace if result else ("the field alone responds",)
        steps = "\n".join(f"* {line}" for line in trace)
        return f"**{sentence}**\n\n{int(selected.sum())} Gaussians\n\n{steps}"

    ask = add_question_form(client, draw, splats.objects)
    mode.on_update(lambda _: ask())
    names = sorted(splats.trained.cameras)
    go = client.gui.add_dropdown("Camera", ("", *names))
    shown = client.gui.add_checkbox("Show cameras", False)
    frustums = [_add_frustum(client, splats.trained.cameras[name], name, go) for name in names]
    go.on_update(lambda _: _go_to(client, splats.trained.cameras.get(go.value)))

    @shown.on_update
    def _(_: Any) -> None:
        for frustum in frustums:
            frustum.visible = shown.value

    if sentence:
        ask(sentence)


def _add_frustum(client: Any, camera: Camera, name: str, go: Any) -> Any:
    """A camera that takes the window to its place when it is clicked."""
    frustum = client.scene.add_camera_frustum(
        f"/cameras/{name}",
        2 * math.atan(camera.height / 2 / camera.fy),
        camera.width / camera.height,
        color=HIDDEN,
        **_pose(camera),
        visible=False,
    )

    @frustum.on_click
    def _(_: Any) -> None:
        go.value = name

    return frustum


def _go_to(client: Any, camera: Camera | None) -> None:
    if camera is not None:
        with client.atomic():
            for name, value in _pose(camera).items():
                setattr(client.camera, name, value)
            client.camera.fov = 2 * math.atan(camera.height / 2 / camera.fy)


def _pose(camera: Camera) -> dict[str, np.ndarray]:
    """Camera to world, as viser takes it: wxyz and position."""
    from scipy.spatial.transform import Rotation  # slow to import

    turn = Rotation.from_matrix(camera.world_to_camera[:3, :3].T.cpu().numpy())
    return {"wxyz": turn.as_quat()[[3, 0, 1, 2]], "position": camera.position.cpu().numpy()}


def _camera_of(client: Any) -> Camera:
    """The window as a camera: the viewpoint of "left" and "in front"."""
    from scipy.spatial.transform import Rotation

    window = client.camera
    pose = torch.eye(4)
    rotation = Rotation.from_quat(np.roll(window.wxyz, -1)).as_matrix().T
    pose[:3, :3] = torch.from_numpy(rotation)
    pose[:3, 3] = torch.from_numpy(-rotation @ window.position)
    focal = _HEIGHT / 2 / math.tan(window.fov / 2)
    width = round(_HEIGHT * window.aspect)
    return Camera(pose, focal, focal, width / 2, _HEIGHT / 2, width, _HEIGHT)


def _first_place(trained: TrainedScene) -> tuple[np.ndarray, np.ndarray]:
    """Position of the first photo, and the point that the cameras look at."""
    cameras = [camera.to("cpu") for camera in trained.cameras.values()]
    middle = trained.gaussians.means.cpu().median(dim=0).values
    target = look_at_point(cameras, float("inf"))
    return cameras[0].position.numpy(), (middle if target is None else target).numpy()
