"""A trained scene, which turns sentences into masks, for pictures and for scores alike."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from refer3d.runs.device import choose_device
from refer3d.runs.errors import InputError
from refer3d.runs.folder import RESOLVED, other_run
from refer3d.runs.states import load_state
from refer3d.text_encoder import TextEncoder, is_same_text, make_encoder
from refersplat.cameras import Camera
from refersplat.config import TextConfig
from refersplat.data.names import ViewNames
from refersplat.language.answer import Answerer
from refersplat.language.execute import Result
from refersplat.ops import BlendMatrix
from refersplat.referring.state import ANEW, FORMAT, RESULT, RESULT_FILE
from refersplat.referring.threshold import mask_probabilities
from refersplat.splats.checkpoints import trained_gaussians
from refersplat.splats.gaussians import Gaussians
from refersplat.splats.render import frozen_blend


class Responses(NamedTuple):
    """Responses of the Gaussians to B sentences, and the thresholds of their masks."""

    logits: Tensor
    """[B, N], to be blended before the sigmoid."""
    results: list[Result | None]
    """The groups that each means; None where the field responds."""
    thresholds: list[float]
    """Least probability of a pixel of the mask."""


class Answer(NamedTuple):
    """Answer to one sentence, seen from one camera."""

    mask: Tensor
    """[H, W] bool, empty where the sentence means nothing here."""
    groups: tuple[int, ...] | None
    """The groups of Gaussians that it means, as in ``TrainedScene.groups``; None where the field
    responded."""
    probabilities: dict[str, float]
    """Probability of each group to be meant, by its name, the most probable first."""
    trace: tuple[str, ...]
    """Lines that tell how the groups were found."""
    names: tuple[str, ...] = ()
    """Names of ``groups``."""


@dataclass(frozen=True)
class TrainedScene:
    """Gaussians with a trained referring field.

    Examples:
        >>> scene = TrainedScene.load("output/tabletop")
        >>> scene.mask("the tall yellow bottle", "frame_00008")  # [H, W] bool
        >>> answer = scene.find("the smaller of the two boxes")
        >>> print(*answer.names, *answer.trace, sep="\\n")
    """

    gaussians: Gaussians
    answerer: Answerer
    threshold: float
    """Least probability of a pixel of the mask, where a group responds."""
    field_threshold: float
    """The same where the field does, whose responses have another scale."""
    chosen_by: str
    """Origin of the thresholds, in words."""
    is_surface: Tensor
    """[N] bool, False for Gaussians that are hidden in every training view, so that no mask tells
    which object they belong to."""
    cameras: Mapping[str, Camera]
    """Cameras of the scene's photos, by the photos' names."""
    training_views: tuple[str, ...] = ()
    """Names of the photos that trained it; none in runs of earlier versions."""

    @classmethod
    def load(
        cls,
        folder: Path | str,
        device: str = "auto",
        text: TextConfig | None = None,
        threshold: float = -1.0,
    ) -> TrainedScene:
        """Loads a run of train.py; the photos are not needed.

        Args:
            folder: Folder of the run.
            device: ``auto`` takes a GPU where there is one.
            text: The language model, where its name or cache differs from training.
            threshold: Least probability of a pixel of the mask; -1 takes that of the training.

        Raises:
            InputError: A file is absent, broken or does not belong to the others.
        """
        path = Path(folder, RESULT_FILE)
        if not path.is_file():
            raise _no_run(Path(folder))
        learned = load_state(path, FORMAT, RESULT, ANEW)
        where = choose_device(device)
        gaussians = trained_gaussians(Path(folder)).to(where)
        text = text or TextConfig(learned["encoder"] or "auto")
        encoder = make_encoder(text.encoder, text.cache, where)
        try:
            if len(learned["features"]) != gaussians.count:
                raise InputError(
                    f"{path}: expected features of {gaussians.count} Gaussians, as in the point "
                    f"cloud, got {len(learned['features'])}; {ANEW}"
                )
            if not is_same_text(learned["encoder_identity"], encoder.identity):
                raise InputError(
                    f"--text.encoder: expected {learned['encoder_identity']}, with which {path} "
                    f"was trained, got {encoder.identity}; use the same"
                )
            return cls(
                gaussians,
                Answerer.from_state(learned, gaussians.means, encoder),
                *_thresholds(threshold, learned),
                learned["is_surface"].to(where),
                {name: Camera(**camera) for name, camera in learned["cameras"].items()},
                tuple(
                    name for name in learned["training_views"] or () if name in learned["cameras"]
                ),
            )
        except (torch.OutOfMemoryError, InputError):
            raise
        except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(f"{path}: not a result of train.py ({reason}); {ANEW}") from error

    @property
    def encoder(self) -> TextEncoder:
        """The language model."""
        return self.answerer.encoder

    @property
    def groups(self) -> tuple[str, ...]:
        """Name of each group of Gaussians, that is of each object that training sentences mean.

        It is the object's category in the scene's files, or else a noun phrase of its sentences.
        Empty where the field answers alone.
        """
        return tuple(self.answerer.language.names) if self.answerer.language else ()

    def camera(self, view: Camera | str | None = None) -> Camera:
        """Returns the camera of a photo.

        Args:
            view: The photo's name, or its number if that is one photo's; a camera stays itself.
                None means the first training view.

        Raises:
            InputError: There is no such photo.
        """
        if isinstance(view, Camera):
            return view
        names = list(self.cameras)
        if not names:
            raise InputError("camera: expected a Camera, since the run has no photo's; give one")
        if view is None:
            return self.cameras[(*self.training_views, *names)[0]]
        (name,) = ViewNames(names, names).require([view], "camera")
        return self.cameras[name]

    def mask(
        self,
        sentence: str,
        camera: Camera | str | None = None,
        amodal: bool = False,
        *,
        through: bool | None = None,
    ) -> Tensor:  # [H, W] bool
        """Returns the mask of the object that a sentence means.

        Args:
            sentence: Any English sentence.
            camera: View of the mask, as in :meth:`camera`.
            amodal: Include the parts of the object that others hide.
            through: The old name of ``amodal``, to be removed in the next release.
        """
        if through is not None:
            warnings.warn("through is deprecated; use amodal", DeprecationWarning, stacklevel=2)
            amodal = through
        return self.find(sentence, camera, amodal).mask

    @torch.inference_mode()
    def find(
        self, sentence: str, camera: Camera | str | None = None, amodal: bool = False
    ) -> Answer:
        """Returns what a sentence means, with its mask and how it was found.

        Args:
            sentence: A question or a description in English; it may mean several objects or none.
            camera: View of the mask, and viewpoint of "left", "in front" and the like, as in
                :meth:`camera`.
            amodal: Include the parts of the objects that others hide.

        Raises:
            InputError: The sentence is blank, or there is no such photo.
        """
        camera = self.camera(camera)
        responses = self.respond([sentence], camera)
        (result,) = responses.results
        if amodal:
            (image,) = self.amodal(responses, camera)
        elif result is not None and not result.groups:
            image = responses.logits.new_zeros(camera.height, camera.width)
        else:
            (image,) = self.visible(responses, self.blend(camera))
        mask = image >= responses.thresholds[0]
        if result is None:
            return Answer(mask, None, {}, ("the field alone responds",))
        order, groups = result.probabilities.argsort(descending=True).tolist(), self.groups
        probabilities = {groups[group]: float(result.probabilities[group]) for group in order}
        names = tuple(groups[group] for group in result.groups)
        return Answer(mask, result.groups, probabilities, result.trace, names)

    def respond(self, sentences: Sequence[str], camera: Camera | None = None) -> Responses:
        """Returns each Gaussian's response to each sentence, asked from a camera's viewpoint."""
        logits, results = self.answerer.respond(sentences, camera)
        thresholds = [
            self.field_threshold if result is None else self.threshold for result in results
        ]
        return Responses(logits, results, thresholds)

    def blend(self, camera: Camera) -> BlendMatrix:
        """Returns the blend matrix of a view, which serves all sentences."""
        return frozen_blend(self.gaussians, camera)

    def visible(self, responses: Responses, blend: BlendMatrix) -> Tensor:  # [B, H, W]
        """Renders the probability that a pixel shows the object of each sentence."""
        return _probabilities(responses.logits, blend)

    def select(self, responses: Responses) -> Tensor:  # [B, N] bool
        """Selects the Gaussians that each sentence means, without those hidden in every photo."""
        thresholds = responses.logits.new_tensor(responses.thresholds)[:, None]
        return (responses.logits.sigmoid() >= thresholds) & self.is_surface

    def amodal(self, responses: Responses, camera: Camera) -> Tensor:  # [B, H, W]
        """Renders the same probabilities with the object's Gaussians alone, so that it is whole."""
        images = responses.logits.new_zeros(len(responses.logits), camera.height, camera.width)
        rows = zip(images, responses.logits, self.select(responses), strict=True)
        for image, row, selected in rows:
            if selected.any():
                blend = frozen_blend(self.gaussians, camera, selected)
                image.copy_(_probabilities(row[None, selected], blend)[0])
        return images


def _no_run(folder: Path) -> InputError:
    """The error about a folder without the result of a training."""
    path, remedy = folder / RESULT_FILE, "name the folder that train.py -m has written"
    if other := other_run(folder, "refersplat"):
        return InputError(f"{folder}: {other}")
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing there"
        return InputError(f"{folder}: expected the folder of a run, got {found}; {remedy}")
    if not (folder / RESOLVED).is_file():
        return InputError(f"{path}: no such file, so this is no trained run; {remedy}")
    return InputError(
        f"{path}: no such file, so the referring stage has not finished; run train.py --resume, "
        "after adding json/ and gt_mask/ where the scene has none"
    )


def _probabilities(logits: Tensor, blend: BlendMatrix) -> Tensor:  # [B, N] -> [B, H, W]
    return mask_probabilities(blend.blend(logits.T.contiguous()), blend.transmittance)


def _thresholds(given: float, learned: dict[str, Any]) -> tuple[float, float, str]:
    """Thresholds of groups and of the field, and their origin in words."""
    if given >= 0:
        return given, given, "given by --threshold"
    count, chosen = len(learned["aside"]), (learned["threshold"], learned["field_threshold"])
    if not count:
        return *chosen, "no view was held out to choose it on"
    return *chosen, f"best mean IoU on {count} held-out training views"
