"""From a trained scene and a sentence to the pixels that show what it means.

The one place where a mask is made, for pictures and for scores alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from refer3d.runs.device import choose_device
from refer3d.runs.errors import InputError
from refer3d.runs.states import load_state
from refer3d.text_encoder import TextEncoder, is_same_text, make_encoder
from refersplat.cameras import Camera
from refersplat.config import TextConfig
from refersplat.language.answer import NO_GROUP, Answerer
from refersplat.ops import BlendMatrix
from refersplat.referring.state import FORMAT, RESULT_FILE
from refersplat.referring.threshold import mask_probabilities
from refersplat.splats.checkpoints import trained_gaussians
from refersplat.splats.gaussians import Gaussians
from refersplat.splats.render import frozen_blend


class Responses(NamedTuple):
    """What the Gaussians answer to B sentences."""

    logits: Tensor
    """[B, N], to be blended before the sigmoid."""
    groups: list[int]
    """The group that answers each; ``NO_GROUP`` where the field does."""
    thresholds: list[float]
    """From which probability a pixel is the object."""


@dataclass(frozen=True)
class TrainedScene:
    """A scene that can be asked.

    >>> scene = TrainedScene.load("output/tabletop")
    >>> camera = scene.cameras["frame_00008"]
    >>> scene.mask("the tall yellow bottle", camera)  # [H, W] bool
    """

    gaussians: Gaussians
    answerer: Answerer
    threshold: float
    """Pixels at or above it are the object, where a group answers."""
    field_threshold: float
    """The same where the field does, whose responses are of another scale."""
    chosen_by: str
    """Who chose the thresholds, in words."""
    is_surface: Tensor
    """[N] bool, False for what lies inside or below others wherever one looks from: no mask has
    ever told what it belongs to."""
    cameras: Mapping[str, Camera]
    """Those of the scene's photos, by the photos' names."""

    @classmethod
    def load(
        cls,
        folder: Path | str,
        device: str = "auto",
        text: TextConfig | None = None,
        threshold: float = -1.0,
    ) -> TrainedScene:
        """Reads what train.py wrote; the photos are not needed.

        Args:
            folder: Of the run.
            device: ``auto`` takes a GPU where there is one.
            text: The language model, if it is found by another name than in training.
            threshold: Where a pixel becomes object; -1 takes what the training chose.

        Raises:
            InputError: A file of it is absent, broken or does not belong to the others.
        """
        path = Path(folder, RESULT_FILE)
        if not path.is_file():
            raise InputError(
                f"{path}: no such file, so no sentences have been learned; go on with train.py "
                "--resume, where the scene has none, after adding json/ and gt_mask/ to it"
            )
        learned = load_state(path, FORMAT)
        where = choose_device(device)
        gaussians = trained_gaussians(Path(folder)).to(where)
        text = text or TextConfig(str(learned.get("encoder", "auto")))
        encoder = make_encoder(text.encoder, text.cache, where)
        try:
            if len(learned["features"]) != gaussians.count:
                raise InputError(
                    f"{path}: was learned for {len(learned['features'])} Gaussians, but the point "
                    f"cloud has {gaussians.count}; train into a new folder"
                )
            if not is_same_text(learned["encoder_identity"], encoder.identity):
                raise InputError(
                    f"--text.encoder: {path} was learned with {learned['encoder_identity']}, but "
                    f"this is {encoder.identity}; use the same"
                )
            return cls(
                gaussians,
                Answerer.from_state(learned, gaussians.means, encoder),
                *_thresholds(threshold, learned),
                learned["is_surface"].to(where),
                {name: Camera(**camera) for name, camera in learned["cameras"].items()},
            )
        except torch.OutOfMemoryError:
            raise
        except (KeyError, TypeError, RuntimeError, AttributeError) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(
                f"{path}: does not hold what train.py writes ({reason}); train into a new folder"
            ) from error

    @property
    def encoder(self) -> TextEncoder:
        """The language model."""
        return self.answerer.encoder

    @torch.inference_mode()
    def mask(self, sentence: str, camera: Camera, amodal: bool = False) -> Tensor:  # [H, W] bool
        """The pixels that show what a sentence means.

        Args:
            sentence: In English; anything.
            camera: From where.
            amodal: Also where something else stands before it.
        """
        asked = self.respond([sentence])
        (shown,) = self.amodal(asked, camera) if amodal else self.seen(asked, self.view(camera))
        return shown >= asked.thresholds[0]

    def respond(self, sentences: Sequence[str]) -> Responses:
        """What each Gaussian answers to each sentence."""
        logits, groups = self.answerer.respond(sentences)
        groups = groups.tolist()
        of_field = self.field_threshold
        return Responses(
            logits, groups, [of_field if g == NO_GROUP else self.threshold for g in groups]
        )

    def view(self, camera: Camera) -> BlendMatrix:
        """A view's rendering, to be used for all sentences."""
        return frozen_blend(self.gaussians, camera)

    def seen(self, asked: Responses, blend: BlendMatrix) -> Tensor:  # [B, H, W]
        """How probable it is that a pixel shows what each sentence means."""
        return _probabilities(asked.logits, blend)

    def amodal(self, asked: Responses, camera: Camera) -> Tensor:  # [B, H, W]
        """The same, with nothing but the answering Gaussians there: objects are whole."""
        images = asked.logits.new_zeros(len(asked.logits), camera.height, camera.width)
        for image, row, threshold in zip(images, asked.logits, asked.thresholds, strict=True):
            selected = (row.sigmoid() >= threshold) & self.is_surface
            if selected.any():
                blend = frozen_blend(self.gaussians, camera, selected)
                image.copy_(_probabilities(row[None, selected], blend)[0])
        return images


def _probabilities(logits: Tensor, blend: BlendMatrix) -> Tensor:  # [B, N] -> [B, H, W]
    return mask_probabilities(blend.blend(logits.T.contiguous()), blend.transmittance)


def _thresholds(given: float, learned: dict[str, Any]) -> tuple[float, float, str]:
    """The groups', the field's, and who chose them."""
    if given >= 0:
        return given, given, "given by --threshold"
    aside, chosen = len(learned["aside"]), (learned["threshold"], learned["field_threshold"])
    if not aside:
        return *chosen, "no view was kept aside to choose it on"
    return *chosen, f"best mean IoU on {aside} training views kept aside"
