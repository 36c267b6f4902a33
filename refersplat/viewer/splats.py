"""Colours and opacities of a scene's Gaussians for answers and labels."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from refersplat.cameras import Camera
from refersplat.inference.overlay import MARK, to_pixels
from refersplat.inference.trained_scene import Responses, TrainedScene
from refersplat.labels.lasso import Action, Lasso, combine, select_lasso, select_mask
from refersplat.masks.candidates import Sam
from refersplat.photos.world import find_up
from refersplat.splats.formats import SH_C0
from refersplat.splats.gaussians import Gaussians
from refersplat.splats.render import render

MODES = ("mark", "amodal", "alone", "without", "heat map")
"""Ways to show an answer; ``amodal`` lets the object shine through what hides it."""
_FAINT = 0.1
"""Opacity of other Gaussians in the amodal mode."""


class SplatView:
    """The Gaussians of a scene, shared by all clients."""

    def __init__(
        self,
        gaussians: Gaussians,
        cameras: Mapping[str, Camera],
        trained: TrainedScene | None = None,
        sam: Sam | None = None,
    ) -> None:
        """Takes a scene; computes what no answer changes.

        Args:
            gaussians: The N Gaussians.
            cameras: Cameras of the photos, by their names.
            trained: The same scene with its language, where that is trained.
            sam: What outlines the object at a click.
        """
        self.gaussians = gaussians
        self.cameras = cameras
        self.trained = trained
        self.sam = sam
        axes = (gaussians.rotations * gaussians.scales[:, None, :]).cpu()
        self.means = gaussians.means.cpu().numpy()
        self.covariances = (axes @ axes.mT).numpy()
        colors = SH_C0 * gaussians.sh_dc[:, 0] + 0.5
        self.colors = colors.clamp(0, 1).cpu().numpy()
        self.opacities = gaussians.opacities[:, None].cpu().numpy()
        rotations = [camera.world_to_camera[:3, :3] for camera in cameras.values()]
        self.up = find_up(torch.stack(rotations).cpu().double().numpy())
        self._computing = threading.Lock()  # clients take turns: each answer has all cores

    @property
    def objects(self) -> list[str]:
        """One training sentence per group, the shortest, as examples."""
        language = self.trained.answerer.language if self.trained else None
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
        assert self.trained is not None
        with self._computing:
            responses = self.trained.respond([sentence], camera)
            return responses, self.trained.select(responses)[0].cpu().numpy()

    def lasso(self, camera: Camera, polygon: np.ndarray, action: Action) -> Lasso:
        """The Gaussians inside a lasso; see :func:`refersplat.labels.lasso.select_lasso`."""
        with self._computing:
            return select_lasso(self.gaussians, camera, polygon, action)

    @torch.inference_mode()
    def click(self, camera: Camera, point: tuple[float, float], action: Action) -> Lasso:
        """The Gaussians of the object at a point, x and y in shares of the camera's picture."""
        assert self.sam is not None
        with self._computing:
            picture = to_pixels(render(self.gaussians, camera).color)
            mask = self.sam.click(picture, point)
            return select_mask(self.gaussians, camera, mask, action)

    def combine(self, lassos: Sequence[Lasso]) -> Tensor:  # [N] bool
        """The Gaussians that lassos mean; see :func:`refersplat.labels.lasso.combine`."""
        with self._computing:
            return combine(self.gaussians, lassos)

    def paint(
        self, selected: np.ndarray, mode: str, responses: Responses | None = None
    ) -> tuple[np.ndarray, np.ndarray]:  # [N, 3] and [N, 1] in 0..1
        """Colours and opacities that show a selection [N] bool; see :data:`MODES`."""
        if mode == "alone":
            return self.colors, self.opacities * selected[:, None]
        if mode == "without":
            return self.colors, self.opacities * ~selected[:, None]
        if mode == "heat map" and responses is not None:
            heat = (responses.logits[0, :, None].sigmoid().cpu().numpy() * 255).astype(np.uint8)
            return cv2.applyColorMap(heat, cv2.COLORMAP_INFERNO)[:, 0, ::-1] / 255, self.opacities
        gray = self.colors.mean(axis=1, keepdims=True)
        around = 0.55 * (0.5 * self.colors + 0.5 * gray)
        marked = 0.6 * self.colors + 0.4 * np.array(MARK) / 255
        colors = np.where(selected[:, None], marked, around)
        if mode == "amodal":
            return colors, np.where(selected[:, None], self.opacities, _FAINT * self.opacities)
        return colors, self.opacities
