"""From a trained scene and a sentence to the pixels that show what it means.

The one place where a mask is made, for pictures and for scores alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from refersplat.cameras import Camera
from refersplat.command import trained_gaussians
from refersplat.config import Config
from refersplat.gaussians import Gaussians
from refersplat.model.answer import Answer, Answerer
from refersplat.ops import BlendMatrix
from refersplat.referring_state import FORMAT, RESULT_FILE
from refersplat.render import frozen_blend
from refersplat.threshold import mask_probabilities
from refersplat.visibility import visible_share
from runs.device import choose_device
from runs.errors import InputError
from runs.files import load_state
from text_encoder import TextEncoder, is_same_text, make_encoder

SURFACE = 0.15
"""Share of a Gaussian that must be seen from somewhere. Chosen on the masks of a table scene's
training views, the quarter of each object's that hides it least: mean IoU of the through view 0.90
with all, 0.960 from a share of 0.1, 0.962 from 0.15, 0.961 from 0.2, 0.95 from 0.3."""


@dataclass(frozen=True)
class Answers:
    """A trained scene that can be asked."""

    gaussians: Gaussians
    answerer: Answerer
    threshold: float
    """Pixels at or above it are the object."""
    chosen_by: str
    """Who chose the threshold, in words."""
    is_surface: Tensor
    """[N] bool, False for what lies inside or below others wherever one looks from: no mask has
    ever told what it belongs to."""

    @classmethod
    def load(cls, config: Config, cameras: Sequence[Camera]) -> Answers:
        """Reads the run in ``config.model_path``.

        Args:
            config: Its options.
            cameras: Of the training views.

        Raises:
            InputError: A file of it is absent, broken or does not belong to the others.
        """
        out = Path(config.model_path)
        path = out / RESULT_FILE
        if not path.is_file():
            raise InputError(
                f"{path}: no such file, so no sentences have been learned; go on with train.py "
                "--resume, where the scene has none, after adding json/ and gt_mask/ to it"
            )
        learned = load_state(path, FORMAT)
        device = choose_device(config.device)
        gaussians = trained_gaussians(out).to(device)
        encoder = make_encoder(config.text.encoder, config.text.cache, device)
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
            answerer = Answerer.from_state(learned, gaussians.means, encoder)
            threshold, chosen_by = _threshold(config, learned)
        except (KeyError, TypeError, RuntimeError) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(
                f"{path}: does not hold what train.py writes ({reason}); train into a new folder"
            ) from error
        is_surface = visible_share(gaussians, cameras) >= SURFACE
        return cls(gaussians, answerer, threshold, chosen_by, is_surface)

    @property
    def encoder(self) -> TextEncoder:
        """The language model."""
        return self.answerer.encoder

    def respond(self, sentences: Sequence[str]) -> Answer:
        """What each Gaussian answers to each sentence."""
        return self.answerer.respond(sentences)

    def view(self, camera: Camera) -> BlendMatrix:
        """A view's rendering, to be used for all sentences."""
        return frozen_blend(self.gaussians, camera)

    def seen(
        self,
        logits: Tensor,  # [B, N]
        blend: BlendMatrix,
    ) -> Tensor:  # [B, H, W]
        """How probable it is that a pixel shows what each sentence means."""
        return mask_probabilities(blend.blend(logits.T.contiguous()), blend.transmittance)

    def through(
        self,
        logits: Tensor,  # [B, N]
        camera: Camera,
    ) -> Tensor:  # [B, H, W]
        """The same, with nothing but the answering Gaussians there: objects are whole."""
        images = logits.new_zeros(len(logits), camera.height, camera.width)
        for image, row in zip(images, logits, strict=True):
            selected = (row.sigmoid() >= self.threshold) & self.is_surface
            if selected.any():
                blend = frozen_blend(self.gaussians, camera, selected)
                image.copy_(self.seen(row[None, selected], blend)[0])
        return images


def _threshold(config: Config, learned: dict[str, Any]) -> tuple[float, str]:
    if config.train.threshold >= 0:
        return config.train.threshold, "given by --threshold"
    aside = len(learned["aside"])
    if not aside:
        return learned["threshold"], "no view was kept aside to choose it on"
    return learned["threshold"], f"best mean IoU on {aside} training views kept aside"
