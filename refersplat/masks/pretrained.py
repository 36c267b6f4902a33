"""Models of transformers, and photos as they read them.

Their own image processors need torchvision, which is not installed where it does not fit torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from refer3d.runs.errors import InputError
from refer3d.runs.records import as_kind, take
from refer3d.text_encoder.pretrained import call_transformers

CLASSES = {
    "grounding-dino": "GroundingDinoForObjectDetection",
    "sam": "SamModel",
    "sam2": "Sam2Model",
    "sam2_video": "Sam2Model",
    "sam3": "Sam3Model",
    "sam3_video": "Sam3Model",
}
"""Classes by the ``model_type`` of a checkpoint; those for videos hold the weights for photos."""
KINDS = {
    "--detector": ("GroundingDINO", ("grounding-dino",), "IDEA-Research/grounding-dino-base"),
    "--segmenter": (
        "SAM, SAM 2 or SAM 3",
        ("sam", "sam2", "sam2_video", "sam3", "sam3_video"),
        "facebook/sam2.1-hiera-large",
    ),
    "--sam": ("SAM or SAM 2", ("sam", "sam2", "sam2_video"), "facebook/sam2.1-hiera-small"),
}
"""What an option names: in words, the model types, an example."""


@dataclass(frozen=True)
class Checkpoint:
    """A model's folder, or its name on the hub, that an option gives."""

    option: str
    source: str

    @classmethod
    def named(cls, option: str, name: str) -> Checkpoint:
        """The checkpoint that ``option`` names; a folder comes before the hub."""
        folder = Path(name).expanduser()
        return cls(option, str(folder) if folder.is_dir() else name)

    def call(self, function: str, **options: Any) -> Any:
        """Calls a function of transformers with the checkpoint.

        Raises:
            InputError: It cannot be loaded.
        """
        what, _, example = KINDS[self.option]
        remedy = f"name a folder with {what}, or a model on the hub such as {example}"
        return call_transformers(function, self.source, field=self.option, remedy=remedy, **options)

    def kind(self) -> str:
        """The model's type.

        Raises:
            InputError: It cannot be loaded, or is of another type than the option takes.
        """
        what, types, example = KINDS[self.option]
        kind = self.call("AutoConfig.from_pretrained").model_type
        if kind not in types:
            raise InputError(
                f"{self.option}: expected {what}, got {self.source!r} of type {kind!r}; name "
                f"another, such as {example}"
            )
        return kind

    def model(self, device: torch.device) -> Any:
        """The frozen model.

        Raises:
            InputError: It cannot be loaded, or some of its weights are missing.
        """
        import transformers

        transformers.utils.logging.set_verbosity_error()  # missing weights are told below
        loader = f"{CLASSES[self.kind()]}.from_pretrained"
        model, info = self.call(loader, output_loading_info=True)
        if missing := sorted(info["missing_keys"]):
            raise InputError(
                f"{self.option}: {self.source!r} lacks {len(missing)} weights of its model "
                f"({missing[0]}); copy or download the checkpoint again"
            )
        return model.float().to(device).eval().requires_grad_(False)

    def preparation(self) -> Preparation:
        """How photos are prepared for the model.

        Raises:
            InputError: The checkpoint does not say.
        """
        function = "image_processing_base.ImageProcessingMixin.get_image_processor_dict"
        settings, _ = self.call(function)
        return Preparation.of(settings, f"{self.option}: {self.source}: preprocessor_config.json")


@dataclass(frozen=True)
class Preparation:
    """Size and scale of photos for a model."""

    size: Mapping[str, int]
    """``height`` and ``width``; or ``longest_edge``, or that and ``shortest_edge``, of a photo
    whose shape is kept."""
    padded: tuple[int, int] | None
    """Height and width that zeros fill up to the right and below."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Of each channel, on the scale that ``factor`` gives."""
    factor: float
    resample: int
    """Filter, by Pillow's number."""

    @classmethod
    def of(cls, settings: Mapping[str, Any], where: str) -> Preparation:
        """Reads the settings of an image processor.

        Raises:
            InputError: Some are missing, or of another kind.
        """
        size = {
            key: as_kind(value, int, f"{where}: size: {key}")
            for key, value in take(settings, "size", dict, where).items()
        }
        if {*size} not in (
            {"height", "width"},
            {"longest_edge"},
            {"longest_edge", "shortest_edge"},
        ):
            raise InputError(
                f"{where}: size: expected height and width, or longest_edge, got {size}; copy the "
                "checkpoint again"
            )
        pad = settings.get("pad_size") if settings.get("do_pad") else None
        mean, std = (
            tuple(as_kind(v, float, f"{where}: {key}") for v in take(settings, key, list, where))
            for key in ("image_mean", "image_std")
        )
        return cls(
            size=size,
            padded=pad and (int(pad["height"]), int(pad["width"])),
            mean=mean,
            std=std,
            factor=float(settings.get("rescale_factor", 1 / 255)),
            resample=int(settings.get("resample", Image.Resampling.BILINEAR)),
        )

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a photo before it is padded."""
        if "height" in self.size:
            return self.size["height"], self.size["width"]
        short, long = sorted((height, width))
        if "shortest_edge" not in self.size:
            factor = self.size["longest_edge"] / long
            return int(height * factor + 0.5), int(width * factor + 0.5)
        edge = min(float(self.size["shortest_edge"]), self.size["longest_edge"] * short / long)
        less, more = round(edge), int(edge * long / short)
        return (less, more) if height <= width else (more, less)

    def __call__(
        self,
        photo: np.ndarray,  # [H, W, 3] uint8
        device: torch.device,
    ) -> Tensor:  # [1, 3, h, w]
        """Resizes, scales and pads a photo."""
        height, width = self.resized(*photo.shape[:2])
        picture = Image.fromarray(photo).resize((width, height), Image.Resampling(self.resample))
        values = np.asarray(picture, dtype=np.float32) * self.factor
        values = (values - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        pixels = torch.from_numpy(values).permute(2, 0, 1)[None]
        if self.padded:
            rows, columns = self.padded[0] - height, self.padded[1] - width
            pixels = torch.nn.functional.pad(pixels, (0, columns, 0, rows))
        return pixels.contiguous().to(device)
