"""From a trained scene and a sentence to the pixels that show what it means.

The one place where a mask is made, for pictures and for scores alike.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from refersplat.cameras import Camera
from refersplat.command import trained_gaussians
from refersplat.config import Config
from refersplat.gaussians import Gaussians
from refersplat.model.referring import ReferringField
from refersplat.ops import BlendMatrix
from refersplat.render import frozen_blend
from refersplat.threshold import mask_probabilities
from refersplat.train_referring import FORMAT, RESULT_FILE
from runs.errors import InputError
from runs.files import load_state
from text_encoder import TextEncoder, make_encoder

log = logging.getLogger(__name__)


class Response(NamedTuple):
    """What the Gaussians answer to B sentences."""

    values: Tensor
    """[B, N], probabilities or logits."""
    is_logit: Tensor
    """[B] bool, which of the sentences are answered with logits."""

    def probabilities(self) -> Tensor:  # [B, N]
        """How probable it is that a Gaussian is part of what the sentence means."""
        return torch.where(self.is_logit[:, None], self.values.sigmoid(), self.values)


@dataclass(frozen=True)
class Answers:
    """A trained scene that can be asked."""

    gaussians: Gaussians
    field: ReferringField
    features: Tensor
    """[N, C] the Gaussians' referring features."""
    encoder: TextEncoder
    threshold: float
    """Pixels at or above it are the object."""
    chosen_by: str
    """Who chose the threshold, in words."""

    @classmethod
    def load(cls, config: Config) -> Answers:
        """Reads the run in ``config.model_path``.

        Raises:
            InputError: A file of it is absent, broken or does not belong to the others.
        """
        out = Path(config.model_path)
        path = out / RESULT_FILE
        if not path.is_file():
            raise InputError(
                f"{path}: no such file, so no sentences have been learned; "
                "go on with train.py --resume"
            )
        learned = load_state(path, FORMAT)
        gaussians = trained_gaussians(out)
        if len(learned["features"]) != gaussians.count:
            raise InputError(
                f"{path}: was learned for {len(learned['features'])} Gaussians, the point cloud "
                f"has {gaussians.count}; train the folder again"
            )
        encoder = make_encoder(config.text.encoder, config.text.cache)
        if encoder.identity != learned["encoder_identity"]:
            raise InputError(
                f"--text.encoder: {path} was learned with {learned['encoder_identity']}, this is "
                f"{encoder.identity}; use the same"
            )
        field = ReferringField(learned["text_dim"], learned["features"].shape[1])
        field.load_state_dict(learned["field"])
        threshold, chosen_by = _threshold(config, learned)
        return cls(gaussians, field.eval(), learned["features"], encoder, threshold, chosen_by)

    def respond(self, sentences: Sequence[str]) -> Response:
        """What each Gaussian answers to each sentence."""
        values = self.field.respond(self.features, self.gaussians.means, self.encoder(sentences))
        return Response(values, torch.ones(len(sentences), dtype=torch.bool))

    def seen(self, response: Response, blend: BlendMatrix) -> Tensor:  # [B, H, W]
        """How probable it is that a pixel shows what each sentence means."""
        return blended(response, blend)

    def through(self, response: Response, camera: Camera) -> Tensor:  # [B, H, W]
        """The same, with nothing but the answering Gaussians there: objects are whole."""
        heat = []
        for index, probabilities in enumerate(response.probabilities()):
            selected = probabilities >= self.threshold
            if selected.any():
                blend = frozen_blend(self.gaussians, camera, selected)
                one = Response(
                    response.values[index, None, selected], response.is_logit[index, None]
                )
                heat.append(blended(one, blend)[0])
            else:
                heat.append(torch.zeros(camera.height, camera.width))
        return torch.stack(heat)

    def view(self, camera: Camera) -> BlendMatrix:
        """A view's rendering, to be used for all sentences."""
        return frozen_blend(self.gaussians, camera)

    def with_threshold(self, threshold: float) -> Answers:
        """The same scene with another threshold."""
        return replace(self, threshold=threshold)


def blended(response: Response, blend: BlendMatrix) -> Tensor:  # [B, H, W]
    """Blends what the Gaussians answer into images of probabilities.

    Probabilities blend as they are: what light misses of all Gaussians counts as nothing. Logits
    blend first, as the field was trained.
    """
    images = blend.blend(response.values.T.contiguous())
    as_probabilities = mask_probabilities(images, blend.transmittance)
    return torch.where(response.is_logit[:, None, None], as_probabilities, images)


def _threshold(config: Config, learned: dict[str, Any]) -> tuple[float, str]:
    if config.train.threshold >= 0:
        return config.train.threshold, "given by --threshold"
    aside = len(learned["aside"])
    if not aside:
        return learned["threshold"], "no view was kept aside to choose it on"
    return learned["threshold"], f"best mean IoU on {aside} training views kept aside"
