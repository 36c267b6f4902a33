"""The controls that label objects by lassos."""

from __future__ import annotations

import asyncio
import html
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from refer3d.runs.errors import InputError
from refersplat.cameras import Camera
from refersplat.data import Scene, View
from refersplat.inference.overlay import MARK, draw_overlay
from refersplat.labels.files import category_of, label_of, render_masks, save_label
from refersplat.labels.lasso import ACTIONS, Lasso
from refersplat.splats.render import frozen_blend
from refersplat.viewer.splats import SplatView
from refersplat.viewer.windows import camera_of

_HEIGHT = 480
"""Pixels of the window in which lassos are evaluated."""
_SPHERE = 10
"""Radius of the sphere that catches the pointer, in distances between the eye and the scene."""
_NUM_PREVIEWS = 6
_PREVIEW_WIDTH = 200
HELP = (
    "Tick **Draw**, hold the left button and draw around the object. Untick, turn the scene by a "
    "quarter, and do it again. Then name it, write sentences about it, and save."
)
CLICK_HELP = "Or click on the object, in two or three views, and SAM outlines what is visible."

Show = Callable[[np.ndarray], None]
"""Marks Gaussians [N] bool in a client's scene."""


class Labelling:
    """One client's label: its lassos, and the controls."""

    def __init__(self, splats: SplatView, scene: Scene, client: Any, show: Show) -> None:
        """Adds the controls to the client's panel, at the place where viser adds elements now."""
        self.splats, self.scene, self.client, self.show = splats, scene, client, show
        self.lassos: list[Lasso] = []
        self.stroke: list[tuple[float, float]] = []
        gui = client.gui
        self.draw = gui.add_checkbox("Draw", False)
        self.action = gui.add_dropdown("Lasso", ACTIONS)
        back = gui.add_button_group("Back", ("Undo", "Start again"))
        self.name = gui.add_text("Name", "", hint='such as "red mug"')
        self.sentences = gui.add_text("Sentences", "", multiline=True, hint="one in each line")
        self.replace = gui.add_checkbox("Replace", False, hint="a label of the same name")
        save = gui.add_button("Save")
        self.help = HELP if splats.sam is None else f"{HELP}\n\n{CLICK_HELP}"
        self.about = gui.add_markdown(self.help)
        self.preview = gui.add_image(np.zeros((2, 2, 3), np.uint8), visible=False)
        back.on_click(lambda _: self._change(self.lassos[:-1] if back.value == "Undo" else []))
        save.on_click(lambda _: self._try(self.save))
        self.draw.on_update(lambda _: self._catch())

    def _catch(self) -> None:
        """Puts a sphere around the window while drawing, since viser reports drags of objects."""
        scene = self.client.scene
        if not self.draw.value:
            scene.remove_by_name("/lasso")
            return
        window = self.client.camera
        reach = float(np.linalg.norm(np.subtract(window.look_at, window.position)))
        sphere = scene.add_icosphere(
            "/lasso/sphere", _SPHERE * max(reach, 1e-3), opacity=0.0, side="back", subdivisions=2,
            cast_shadow=False, receive_shadow=False, position=window.position,
        )  # fmt: skip
        sphere.on_drag("left")(self.drag)
        if self.splats.sam is not None:
            sphere.on_click(self.click)

    async def drag(self, event: Any) -> None:
        """Collects the stroke; asynchronous, so that viser calls it in the pointer's order."""
        if event.phase == "start":
            self.stroke = [event.start_screen_pos]
        self.stroke.append(event.end_screen_pos)
        camera = camera_of(self.client.camera, _HEIGHT)
        polygon = np.array(self.stroke) * (camera.width, camera.height)
        if event.phase == "end":
            self.client.scene.remove_by_name("/lasso/line")
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, self._try, lambda: self.add(camera, polygon))
        else:
            ends = _before(camera, polygon, float(self.client.camera.near))
            self.client.scene.add_line_segments(
                "/lasso/line",
                np.stack([ends[:-1], ends[1:]], axis=1),
                MARK,
                thickness=3,
                thickness_units="screen",
            )

    def click(self, event: Any) -> None:
        """Adds what SAM outlines at a click; viser calls it in a thread, since it takes seconds."""
        camera = camera_of(self.client.camera, _HEIGHT)
        self.about.content = "SAM looks …"
        action = self.action.value
        lasso = self._try(lambda: self.splats.click(camera, event.screen_pos, action))
        if lasso is not None:
            self._change([*self.lassos, lasso])

    def add(self, camera: Camera, polygon: np.ndarray) -> None:
        """Adds a lasso [P, 2] in pixels of the camera, and shows what all lassos mean.

        Raises:
            InputError: It has too few corners, or nothing is inside.
        """
        lasso = self.splats.lasso(camera, polygon, self.action.value)
        self._change([*self.lassos, lasso])

    def save(self) -> None:
        """Masks all photos, and saves the label.

        Raises:
            InputError: A lasso, the name or sentences are missing, or the name is taken.
        """
        category = category_of(self.name.value)
        lines = self.sentences.value.splitlines()
        if not any(line.strip() for line in lines):
            raise InputError(f"sentences: expected one about {category!r}, got none; write some")
        if not self.replace.value and category in label_of(self.scene):
            raise InputError(
                f"name: {category!r} is labelled already; choose another, or tick Replace"
            )
        selected = self.splats.combine(self.lassos)
        masks = {}
        for view, mask in render_masks(self.splats.gaussians, selected, self.scene.views):
            masks[view.name] = mask
            self.about.content = f"Masking {len(masks)} of {len(self.scene.views)} photos …"
        save_label(self.scene, category, lines, masks)
        shown = sum(bool(mask.any()) for mask in masks.values())
        self._change([])
        self.about.content = f"Saved **{category}** in {shown} photos.\n\n{self._saved()}"
        self.name.value = self.sentences.value = ""
        self.replace.value = False

    def _saved(self) -> str:
        lines = (
            f"* {html.escape(name)}: {len(texts)} sentences"
            for name, texts in label_of(self.scene).items()
        )
        return "\n".join(lines)

    def _change(self, lassos: list[Lasso]) -> None:
        self.lassos = lassos
        if not lassos:
            self.show(np.zeros(len(self.splats.means), dtype=bool))
            self.preview.visible = False
            self.about.content = self.help
            return
        selected = self.splats.combine(lassos)
        self.show(selected.cpu().numpy())
        strokes = ", ".join(lasso.action for lasso in lassos)
        self.about.content = f"{strokes}: {int(selected.sum())} Gaussians"
        step = max(1, len(self.scene.views) // _NUM_PREVIEWS)
        views = self.scene.views[::step][:_NUM_PREVIEWS]
        self.preview.image = _sheet([self._overlay(view, selected) for view in views])
        self.preview.visible = True

    @torch.inference_mode()
    def _overlay(self, view: View, selected: Tensor) -> np.ndarray:  # [h, w, 3] uint8
        """A small photo with what is selected marked."""
        height = round(_PREVIEW_WIDTH * view.camera.height / view.camera.width)
        blend = frozen_blend(self.splats.gaussians, view.camera.resized(_PREVIEW_WIDTH, height))
        (share,) = blend.blend(selected.to(blend.weights.dtype)[:, None])
        photo = view.image()[None]
        photo = F.interpolate(photo, (height, _PREVIEW_WIDTH), mode="area")[0]
        return draw_overlay(photo, share >= 0.5)

    def _try(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except (InputError, OSError) as error:  # told to whom it concerns; the server goes on
            self.about.content = f"**{html.escape(str(error))}**"


def _sheet(pictures: Sequence[np.ndarray]) -> np.ndarray:  # [h, w, 3] uint8
    """Pictures in two columns; smaller ones are padded."""
    height, width = (max(picture.shape[axis] for picture in pictures) for axis in (0, 1))
    cells = np.full((-(-len(pictures) // 2) * 2, height, width, 3), 255, np.uint8)
    for cell, picture in zip(cells, pictures, strict=False):
        cell[: picture.shape[0], : picture.shape[1]] = picture
    rows = cells.reshape(-1, 2, height, width, 3).transpose(0, 2, 1, 3, 4)
    return rows.reshape(-1, 2 * width, 3)


def _before(camera: Camera, pixels: np.ndarray, near: float) -> np.ndarray:  # [P, 2] -> [P, 3]
    """Points of pixels in the world, just behind the near plane, so that nothing hides them."""
    x = (pixels[:, 0] - camera.cx) / camera.fx
    y = (pixels[:, 1] - camera.cy) / camera.fy
    local = 2 * near * np.stack([x, y, np.ones_like(x)], axis=1)
    rotation = camera.world_to_camera[:3, :3].numpy()
    return local @ rotation + camera.position.numpy()
