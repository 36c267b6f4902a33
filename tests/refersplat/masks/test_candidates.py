"""Candidates by tiny models of random weights, compared with transformers' own processing."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file, save_file

from refersplat.masks.candidates import GroundingDino, Sam, Sam3, load_models
from refersplat.masks.options import MasksConfig
from refersplat.masks.pretrained import Checkpoint, Preparation
from tests.errors import raises

CPU = torch.device("cpu")
OPEN = MasksConfig(box_threshold=0.0, text_threshold=0.0, candidates=100)


def picture(height, width):
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(45, 60), (60, 45), (90, 37), (64, 64)])
@pytest.mark.parametrize("model", ["sam", "grounding_dino"])
def test_photos_are_prepared_as_by_transformers(request, model, size):
    folder = request.getfixturevalue(model)
    kind = {"sam": "SamImageProcessor", "grounding_dino": "GroundingDinoImageProcessor"}[model]
    # The processors without torchvision have names of their own from transformers 5 on.
    kind = getattr(transformers, f"{kind}Pil", None) or getattr(transformers, kind)
    expected = kind.from_pretrained(folder)(images=picture(*size), return_tensors="pt")
    pixels = Checkpoint("--segmenter", str(folder)).preparation()(picture(*size), CPU)
    # Values of up to 2.6 in float32; 2.4e-7 was the worst.
    torch.testing.assert_close(pixels, expected["pixel_values"], rtol=0, atol=2e-6)


@torch.inference_mode()
def test_boxes_are_those_of_transformers(grounding_dino, photo):
    detector = GroundingDino(Checkpoint("--detector", str(grounding_dino)), OPEN, CPU)
    boxes = detector.look(photo)("Beside.")  # no noun: every match counts
    inputs = detector.tokenizer("beside.", return_tensors="pt")
    model = transformers.GroundingDinoForObjectDetection.from_pretrained(grounding_dino).eval()
    output = model(pixel_values=detector.prepare(photo, CPU), **inputs)
    confidences, order = output.logits[0].sigmoid().amax(1).sort(descending=True, stable=True)
    torch.testing.assert_close(boxes.confidences, confidences)
    center, size = output.pred_boxes[0][order].split(2, dim=1)
    corners = torch.cat([center - size / 2, center + size / 2], dim=1).clamp(0, 1)
    torch.testing.assert_close(boxes.corners, corners)
    detector.config = replace(OPEN, box_threshold=float(confidences[4]), candidates=3)
    few = detector.look(photo)("Beside.")
    torch.testing.assert_close(few.confidences, confidences[:3])
    detector.config = replace(OPEN, box_threshold=float(confidences[4]))
    assert len(detector.look(photo)("Beside.").confidences) == 4


@torch.inference_mode()
def test_boxes_of_other_nouns_are_left_out(grounding_dino, photo):
    """'The can beside the bottle' is about the can: boxes of the bottle alone do not count."""
    detector = GroundingDino(Checkpoint("--detector", str(grounding_dino)), OPEN, CPU)
    prompt = "the red can beside the blue bottle."
    words = detector.tokenizer(prompt)["input_ids"]
    nouns = detector.tokenizer.convert_tokens_to_ids(["can", "bottle"])
    can, bottle = map(words.index, nouns)
    logits = torch.full((1, 3, 32), -torch.inf)
    logits[0, :, can] = torch.tensor([3.0, -5.0, 1.0])
    logits[0, :, bottle] = torch.tensor([-5.0, 4.0, 2.0])
    boxes = torch.tensor([[[0.2, 0.2, 0.1, 0.1], [0.8, 0.8, 0.1, 0.1], [0.5, 0.5, 0.2, 0.2]]])
    run = detector.model.forward

    def planted(**inputs):
        output = run(**inputs)
        output.logits, output.pred_boxes = logits, boxes
        return output

    detector.model.forward = planted
    detector.config = MasksConfig()
    found = detector.look(photo)("The red can beside the blue bottle.")
    torch.testing.assert_close(found.confidences, torch.tensor([3.0, 2.0]).sigmoid())
    torch.testing.assert_close(found.corners[0], torch.tensor([0.15, 0.15, 0.25, 0.25]))


@torch.inference_mode()
def test_a_photo_is_encoded_once(grounding_dino, photo):
    detector = GroundingDino(Checkpoint("--detector", str(grounding_dino)), OPEN, CPU)
    calls = []
    encoder = detector.model.model.backbone.conv_encoder
    encoder.register_forward_hook(lambda *_: calls.append(1))
    detect, other = detector.look(photo), detector.look(photo[::-1].copy())
    first = detect("red can")
    assert len({detect(text).confidences.sum().item() for text in ("can", "red bottle")}) == 2
    assert len(calls) == 1
    turned = other("red can")
    assert len(calls) == 2
    assert not torch.equal(turned.confidences, first.confidences)
    torch.testing.assert_close(detect("red can"), first)


BOXES = torch.tensor([[0.1, 0.2, 0.6, 0.9], [0.5, 0.0, 1.0, 0.4], [0.3, 0.3, 0.4, 0.4]])


@torch.inference_mode()
def test_outlines_of_sam_are_those_of_transformers(sam, photo, monkeypatch):
    segmenter = Sam(Checkpoint("--segmenter", str(sam)), CPU)
    monkeypatch.setattr("refersplat.masks.candidates._PIXELS", photo[..., 0].size)  # one at once
    masks = np.stack(list(segmenter.look(photo)(BOXES)))
    height, width = photo.shape[:2]
    kind = getattr(transformers, "SamImageProcessorPil", None) or transformers.SamImageProcessor
    processor = transformers.SamProcessor(kind.from_pretrained(sam))
    corners = (BOXES * torch.tensor([width, height] * 2)).tolist()
    inputs = processor(images=photo, input_boxes=[corners], return_tensors="pt")
    sizes = inputs.pop("original_sizes"), inputs.pop("reshaped_input_sizes")
    inputs["input_boxes"] = inputs["input_boxes"].float()
    model = transformers.SamModel.from_pretrained(sam).eval()
    output = model(**inputs, multimask_output=False)
    padded = {"height": 64, "width": 64}
    (logits,) = processor.image_processor.post_process_masks(
        output.pred_masks, *sizes, binarize=False, pad_size=padded
    )
    assert masks.shape == (3, height, width)
    assert 0 < masks.mean() < 1
    clear = logits[:, 0].abs() > 1e-5
    np.testing.assert_array_equal(masks[clear], (logits[:, 0] > 0)[clear].numpy())


@torch.inference_mode()
def test_outlines_of_sam_2_are_those_of_transformers(sam2, photo):
    segmenter = Sam(Checkpoint("--segmenter", str(sam2)), CPU)
    masks = np.stack(list(segmenter.look(photo)(BOXES)))
    model = transformers.Sam2Model.from_pretrained(sam2).eval()
    pixels = segmenter.prepare(photo, CPU)
    assert pixels.shape[-2:] == (64, 64)
    logits = model(pixel_values=pixels, input_boxes=64 * BOXES[None], multimask_output=False)
    logits = F.interpolate(logits.pred_masks[0], photo.shape[:2], mode="bilinear")[:, 0]
    clear = logits.abs() > 1e-5
    assert 0 < masks.mean() < 1
    np.testing.assert_array_equal(masks[clear], (logits > 0)[clear].numpy())


@torch.inference_mode()
@pytest.mark.parametrize("model", ["sam", "sam2"])
def test_a_click_outlines_what_transformers_rates_best(request, photo, model):
    folder = request.getfixturevalue(model)
    segmenter = Sam(Checkpoint("--sam", str(folder)), CPU)
    network = {"sam": transformers.SamModel, "sam2": transformers.Sam2Model}[model]
    network = network.from_pretrained(folder).eval()
    pixels = segmenter.prepare(photo, CPU)
    height, width = segmenter.prepare.resized(*photo.shape[:2])
    best = set()
    for point in ((0.2, 0.7), (0.9, 0.1), (0.5, 0.5)):
        mask = segmenter.click(photo, point)
        place = torch.tensor([[[[point[0] * width, point[1] * height]]]])
        output = network(pixel_values=pixels, input_points=place, multimask_output=True)
        index = int(output.iou_scores[0, 0].argmax())
        logits = output.pred_masks[0][:, [index]]
        if model == "sam":
            logits = F.interpolate(logits, (64, 64), mode="bilinear")[..., :height, :width]
        logits = F.interpolate(logits, photo.shape[:2], mode="bilinear")[0, 0]
        clear = logits.abs() > 1e-5
        np.testing.assert_array_equal(mask[clear], (logits > 0)[clear].numpy())
        best.add(mask.tobytes())
    assert len(best) == 3  # the point counts


@torch.inference_mode()
def test_objects_of_sam_3_are_those_of_transformers(sam3, photo):
    finder = Sam3(Checkpoint("--segmenter", str(sam3)), OPEN, CPU)
    candidates = finder.look(photo)("bad cab")
    inputs = finder.tokenizer("bad cab", padding="max_length", max_length=12, return_tensors="pt")
    model = transformers.Sam3Model.from_pretrained(sam3).eval()
    output = model(pixel_values=finder.prepare(photo, CPU), **inputs)
    confidences = output.pred_logits[0].sigmoid() * output.presence_logits[0].sigmoid()
    confidences, order = confidences.sort(descending=True, stable=True)
    assert [c.confidence for c in candidates] == pytest.approx(confidences.tolist(), abs=1e-6)
    shares = F.interpolate(output.pred_masks.sigmoid(), photo.shape[:2], mode="bilinear")[0, order]
    clear = ((shares - 0.5).abs() > 1e-6).numpy()
    masks = np.stack([candidate.mask for candidate in candidates])
    assert 0 < masks.mean() < 1
    np.testing.assert_array_equal(masks[clear], (shares > 0.5).numpy()[clear])


@pytest.mark.parametrize(("segmenter", "prompt"), [("sam2", "red can"), ("sam3", "red can")])
def test_models_are_chosen_by_their_type(request, grounding_dino, photo, segmenter, prompt):
    folder = request.getfixturevalue(segmenter)
    config = replace(OPEN, detector=str(grounding_dino), segmenter=str(folder), device="cpu")
    find = load_models(config)(photo)
    candidates = find(prompt)
    assert candidates
    assert all(item.mask.shape == photo.shape[:2] and item.mask.any() for item in candidates)
    confidences = [item.confidence for item in candidates]
    assert confidences == sorted(confidences, reverse=True)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"segmenter": "grounding_dino"}, ["--segmenter", "SAM", "grounding-dino"]),
        ({"detector": "sam"}, ["--detector", "GroundingDINO", "sam"]),
        ({"segmenter": "nothing"}, ["--segmenter", "nothing", "hub"]),
    ],
)
def test_refuses_other_models(request, grounding_dino, sam, tmp_path, monkeypatch, names, words):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folders = {"grounding_dino": grounding_dino, "sam": sam, "nothing": tmp_path / "nothing"}
    folders["nothing"].mkdir()
    chosen = {"detector": "grounding_dino", "segmenter": "sam", **names}
    values = {option: str(folders[name]) for option, name in chosen.items()}
    with raises(ValueError, *words):
        load_models(replace(OPEN, device="cpu", **values))


def test_refuses_a_checkpoint_that_lacks_weights(sam, tmp_path):
    for path in sam.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(sam / "model.safetensors")
    name = next(name for name in weights if "neck" in name)
    del weights[name]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with raises(ValueError, "--segmenter", tmp_path, "lacks", name):
        Checkpoint("--segmenter", str(tmp_path)).model(CPU)
    (tmp_path / "model.safetensors").write_bytes(b"\x10" * 40)
    with raises(ValueError, "--segmenter", tmp_path):
        Checkpoint("--segmenter", str(tmp_path)).model(CPU)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}, "size"),
        ({"size": {"height": 9}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}, "size"),
        ({"size": {"height": 9, "width": 9}, "image_std": [0.5] * 3}, "image_mean"),
    ],
)
def test_refuses_unknown_settings_of_photos(settings, field):
    with raises(ValueError, "the file", field):
        Preparation.of(settings, "the file")


@pytest.mark.parametrize("model", ["sam2", "sam3"])
def test_checkpoints_for_videos_hold_the_weights_for_photos(request, tmp_path, model):
    """As those of facebook/sam2.1-… and facebook/sam3."""
    folder = request.getfixturevalue(model)
    config = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    prefix, kind = "", {**config, "model_type": "sam2_video"}
    if model == "sam3":
        prefix, kind = "detector_model.", {"model_type": "sam3_video", "detector_config": config}
    weights = {f"{prefix}{name}": value for name, value in weights.items()}
    save_file({**weights, "tracker_model.x": torch.zeros(2)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(kind))
    one, other = (Checkpoint("--segmenter", str(f)).model(CPU) for f in (folder, tmp_path))
    assert other.state_dict().keys() == one.state_dict().keys()
    for name, value in other.state_dict().items():
        torch.testing.assert_close(value, one.state_dict()[name], rtol=0, atol=0)
