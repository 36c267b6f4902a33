"""Candidate masks of sentences in a photo, by GroundingDINO and SAM or SAM 2, or by SAM 3."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from refer3d.runs.device import choose_device
from refersplat.masks.choose import Candidate, distinct
from refersplat.masks.options import MasksConfig
from refersplat.masks.pretrained import Checkpoint
from refersplat.masks.sentences import noun_phrase, noun_words

Finder = Callable[[str], list[Candidate]]
"""Returns the distinct candidates of a sentence in one photo, the most confident first."""
Look = Callable[[np.ndarray], Finder]
"""Encodes a photo, [H, W, 3] uint8, once for all its sentences."""
_PIXELS = 1 << 25
"""Pixels of the masks that are enlarged at once."""


class Boxes(NamedTuple):
    """Detections, the most confident first."""

    corners: Tensor
    """[K, 4] left, top, right, bottom, in shares of the photo's width and height."""
    confidences: Tensor
    """[K] in 0..1."""


def load_models(config: MasksConfig) -> Look:
    """Loads the models that the options name.

    Raises:
        InputError: One cannot be loaded, or is of another kind.
    """
    device = choose_device(config.device)
    checkpoint = Checkpoint.named("--segmenter", config.segmenter)
    is_sam3 = checkpoint.kind().startswith("sam3")
    takes_phrase = config.prompt == "phrase" or (config.prompt == "auto" and is_sam3)
    to_prompt = noun_phrase if takes_phrase else str
    if is_sam3:
        return partial(_look, Sam3(checkpoint, config, device).look, to_prompt)
    detector = GroundingDino(Checkpoint.named("--detector", config.detector), config, device)
    segmenter = Sam(checkpoint, device)

    def look(photo: np.ndarray) -> Finder:
        detect, segment = detector.look(photo), segmenter.look(photo)

        def find(sentence: str) -> list[Candidate]:
            boxes = detect(sentence)
            return [
                Candidate(mask, confidence)
                for mask, confidence in zip(
                    segment(boxes.corners), boxes.confidences.tolist(), strict=True
                )
            ]

        return find

    return partial(_look, look, to_prompt)


@torch.inference_mode()
def _look(look: Look, to_prompt: Callable[[str], str], photo: np.ndarray) -> Finder:
    find = look(photo)

    @torch.inference_mode()
    def find_distinct(sentence: str) -> list[Candidate]:
        return distinct(find(to_prompt(sentence)))

    return find_distinct


class GroundingDino:
    """A detector that matches boxes with the words of a sentence."""

    def __init__(self, checkpoint: Checkpoint, config: MasksConfig, device: torch.device) -> None:
        self.model = checkpoint.model(device)
        self.tokenizer = checkpoint.call("AutoTokenizer.from_pretrained")
        self.prepare = checkpoint.preparation()
        self.config = config
        self.device = device
        # The model encodes the photo anew for each sentence.
        backbone = self.model.model.backbone
        backbone.forward = _keep_last(backbone.forward)

    def look(self, photo: np.ndarray) -> Callable[[str], Boxes]:
        """Prepares a photo; the result detects what a sentence describes in it."""
        return partial(self._detect, self.prepare(photo, self.device))

    def _detect(self, pixels: Tensor, sentence: str) -> Boxes:
        prompt = f"{sentence.lower().strip().rstrip('.')}."
        length = self.model.config.max_text_len
        encoded = self.tokenizer(
            prompt,
            truncation=True,
            max_length=length,
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        spans = encoded.pop("offset_mapping")[0].tolist()
        output = self.model(pixel_values=pixels, **encoded.to(self.device))
        matches = output.logits[0].sigmoid()  # [queries, words]; 0 beyond the sentence
        confidences = matches.amax(dim=1)
        kept = confidences > self.config.box_threshold
        # Boxes of other nouns ("the cup beside the kettle") are not what the sentence is about.
        if about := _tokens(prompt, spans, noun_words(sentence)):
            kept &= matches[:, about].amax(dim=1) > self.config.text_threshold
        order = confidences[kept].argsort(descending=True, stable=True)[: self.config.candidates]
        center, size = output.pred_boxes[0][kept][order].chunk(2, dim=1)
        corners = torch.cat([center - size / 2, center + size / 2], dim=1)
        return Boxes(corners.clamp(0, 1), confidences[kept][order])


def _tokens(prompt: str, spans: list[list[int]], words: set[str]) -> list[int]:
    """The tokens that lie in one of the words."""
    places = [m.span() for m in re.finditer(r"\w+", prompt) if m.group() in words]
    return [
        index
        for index, (start, end) in enumerate(spans)
        if start < end and any(first <= start and end <= last for first, last in places)
    ]


def _keep_last(encode: Callable[..., Any]) -> Callable[..., Any]:
    """Keeps the features of the last photo."""
    last: list[Any] = [None, None]

    def forward(pixels: Tensor, mask: Tensor) -> Any:
        if last[0] is not pixels:
            last[:] = pixels, encode(pixels, mask)
        features, positions = last[1]
        return list(features), list(positions)  # the model appends to them

    return forward


class Sam:
    """SAM or SAM 2: outlines what fills a box, or the object at a point."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        self.model = checkpoint.model(device)
        self.prepare = checkpoint.preparation()
        self.device = device

    def look(self, photo: np.ndarray) -> Callable[[Tensor], Iterator[np.ndarray]]:
        """Takes a photo; the result outlines the objects in boxes, [K, 4] in shares."""
        embeddings: list[Any] = []  # made for the first box: many photos have none

        def segment(corners: Tensor) -> Iterator[np.ndarray]:  # [H, W] bool each
            if not len(corners):
                return
            if not embeddings:
                pixels = self.prepare(photo, self.device)
                embeddings.append(self.model.get_image_embeddings(pixels))
            for part in corners.split(max(1, _PIXELS // photo[..., 0].size)):
                yield from self._segment(embeddings[0], part, photo.shape[:2])

        return segment

    def click(
        self,
        photo: np.ndarray,  # [H, W, 3] uint8
        point: tuple[float, float],
    ) -> np.ndarray:  # [H, W] bool
        """Outlines the object at a point, x and y in shares of the photo's width and height.

        Of SAM's three outlines, from a part to the whole, it is the one that SAM rates best.
        """
        embeddings = self.model.get_image_embeddings(self.prepare(photo, self.device))
        points = self._pixels(torch.tensor([point], device=self.device), photo.shape[:2])
        labels = torch.ones(1, 1, 1, dtype=torch.int64, device=self.device)  # 1: on the object
        prompt = {"input_points": points[None, None], "input_labels": labels}
        masks, scores = self._outline(embeddings, photo.shape[:2], True, **prompt)
        return masks[0, int(scores[0].argmax())].cpu().numpy()

    def _segment(self, embeddings: Any, corners: Tensor, size: tuple[int, ...]) -> np.ndarray:
        boxes = self._pixels(corners.reshape(-1, 2), size).reshape(1, -1, 4)
        return self._outline(embeddings, size, False, input_boxes=boxes)[0][:, 0].cpu().numpy()

    def _pixels(self, shares: Tensor, size: tuple[int, ...]) -> Tensor:  # [P, 2]
        """Places in shares of a photo as x, y in the model's picture of it."""
        height, width = self.prepare.resized(*size)
        return shares * shares.new_tensor([width, height])

    def _outline(
        self, embeddings: Any, size: tuple[int, ...], multiple: bool, **prompt: Tensor
    ) -> tuple[Tensor, Tensor]:  # [K, M, H, W] bool, and the model's scores [K, M]
        output = self.model(image_embeddings=embeddings, multimask_output=multiple, **prompt)
        logits = output.pred_masks[0]  # [K, M, h, w]
        if self.prepare.padded:
            height, width = self.prepare.resized(*size)
            logits = _enlarge(logits, self.prepare.padded)[..., :height, :width]
        return _enlarge(logits, size) > 0, output.iou_scores[0]


class Sam3:
    """SAM 3: finds and outlines all objects that a phrase names."""

    def __init__(self, checkpoint: Checkpoint, config: MasksConfig, device: torch.device) -> None:
        self.model = checkpoint.model(device)
        self.tokenizer = checkpoint.call("AutoTokenizer.from_pretrained")
        self.prepare = checkpoint.preparation()
        self.config = config
        self.device = device

    def look(self, photo: np.ndarray) -> Finder:
        """Encodes a photo; the result finds what a phrase names in it."""
        features = self.model.get_vision_features(self.prepare(photo, self.device))
        return partial(self._find, features, photo.shape[:2])

    def _find(self, features: Any, size: tuple[int, ...], phrase: str) -> list[Candidate]:
        length = self.model.text_encoder.config.max_position_embeddings
        encoded = self.tokenizer(
            phrase, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        ).to(self.device)
        output = self.model(
            vision_embeds=features,
            input_ids=encoded["input_ids"],
            attention_mask=encoded["attention_mask"],
        )
        confidences = output.pred_logits[0].sigmoid() * output.presence_logits[0].sigmoid()  # [K]
        order = confidences.argsort(descending=True, stable=True)[: self.config.candidates]
        order = order[confidences[order] > self.config.box_threshold]
        return [
            Candidate((_enlarge(shares[None, None], size)[0, 0] > 0.5).cpu().numpy(), confidence)
            for shares, confidence in zip(
                output.pred_masks[0][order].sigmoid(), confidences[order].tolist(), strict=True
            )
        ]


def _enlarge(values: Tensor, size: tuple[int, ...]) -> Tensor:  # [K, 1, h, w] -> [K, 1, H, W]
    return F.interpolate(values, size=size, mode="bilinear", align_corners=False)
