"""Models of the classes that masks come from: tiny, of random weights, in folders."""

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

GAIN = 6.0
WORDS = ("can", "red", "blue", "the", "bottle", "of", "soup", "beside")


def save(model, folder, settings):
    """Writes a model and the settings of its photos, as on the hub."""
    with torch.no_grad():
        for weights in model.parameters():  # initial ones are so small that pictures hardly count
            weights.mul_(GAIN if weights.ndim > 1 else 1)
    model.save_pretrained(folder)
    transformers.image_processing_base.ImageProcessingMixin(**settings).save_pretrained(folder)


IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


@pytest.fixture(scope="session")
def grounding_dino(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grounding_dino")
    torch.manual_seed(0)
    # GroundingDINO knows BERT's numbers of [CLS], [SEP], "." and "?".
    places = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}
    places |= {1012: ".", 1029: "?", **dict(enumerate(WORDS, 1030))}
    vocabulary = {places.get(i, f"[unused{i}]"): i for i in range(1040)}
    transformers.BertTokenizer(vocabulary).save_pretrained(folder)
    text = transformers.BertConfig(
        vocab_size=1040, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16,
    )  # fmt: skip
    backbone = transformers.SwinConfig(
        image_size=32, window_size=2, embed_dim=8, depths=[1, 1], num_heads=[1, 2],
        out_features=["stage1", "stage2"],
    )  # fmt: skip
    config = transformers.GroundingDinoConfig(
        backbone_config=backbone, text_config=text, num_queries=20, encoder_layers=1,
        encoder_ffn_dim=16, encoder_attention_heads=2, decoder_layers=2, decoder_ffn_dim=16,
        decoder_attention_heads=2, d_model=32, num_feature_levels=3, encoder_n_points=2,
        decoder_n_points=2, max_text_len=32,
    )  # fmt: skip
    model = transformers.GroundingDinoForObjectDetection(config)
    save(model, folder, {"size": {"shortest_edge": 48, "longest_edge": 80}, **IMAGENET})
    return folder


@pytest.fixture(scope="session")
def sam(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sam")
    torch.manual_seed(0)
    config = transformers.SamConfig(
        vision_config={
            "hidden_size": 16, "output_channels": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "image_size": 64, "patch_size": 16, "window_size": 2,
            "global_attn_indexes": [0], "mlp_dim": 16, "num_pos_feats": 8,
        },
        prompt_encoder_config={
            "hidden_size": 16, "image_size": 64, "patch_size": 16, "mask_input_channels": 4,
            "image_embedding_size": 4,
        },
        mask_decoder_config={
            "hidden_size": 16, "mlp_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "iou_head_hidden_dim": 16, "attention_downsample_rate": 1,
        },
    )  # fmt: skip
    pad = {"do_pad": True, "pad_size": {"height": 64, "width": 64}}
    save(transformers.SamModel(config), folder, {"size": {"longest_edge": 64}, **pad, **IMAGENET})
    return folder


@pytest.fixture(scope="session")
def sam2(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sam2")
    torch.manual_seed(0)
    config = transformers.Sam2Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam2_hiera_det_model", "hidden_size": 8, "image_size": [64, 64],
                "blocks_per_stage": [1, 1, 2, 1], "embed_dim_per_stage": [8, 16, 32, 64],
                "num_attention_heads_per_stage": [1, 1, 1, 1],
                "window_size_per_stage": [4, 4, 4, 4],
                "window_positional_embedding_background_size": [2, 2],
                "global_attention_blocks": [3], "mlp_ratio": 1.0,
            },
            "backbone_channel_list": [64, 32, 16, 8], "fpn_hidden_size": 16,
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        },
        prompt_encoder_config={
            "hidden_size": 16, "image_size": 64, "patch_size": 16, "mask_input_channels": 4
        },
        mask_decoder_config={
            "hidden_size": 16, "mlp_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "iou_head_hidden_dim": 16, "attention_downsample_rate": 1,
        },
    )  # fmt: skip
    size = {"size": {"height": 64, "width": 64}}
    save(transformers.Sam2Model(config), folder, {**size, **IMAGENET})
    return folder


@pytest.fixture(scope="session")
def sam3(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sam3")
    torch.manual_seed(0)
    pieces = ["<|startoftext|>", "<|endoftext|>", *(f"{letter}</w>" for letter in "abcdefg")]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = transformers.CLIPTokenizer(vocab=vocabulary, merges=[])
    tokenizer.save_pretrained(folder)
    small = {
        "hidden_size": 32, "num_layers": 1, "num_attention_heads": 2, "intermediate_size": 16
    }  # fmt: skip
    config = transformers.Sam3Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam3_vit_model", "hidden_size": 16, "intermediate_size": 16,
                "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 56,
                "pretrain_image_size": 56, "window_size": 2, "global_attn_indexes": [0],
            },
            "fpn_hidden_size": 32, "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        },
        text_config={
            "model_type": "clip_text_model", "vocab_size": len(pieces), "hidden_size": 16,
            "intermediate_size": 16, "projection_dim": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "max_position_embeddings": 12, "bos_token_id": 0,
            "eos_token_id": 1,
        },
        geometry_encoder_config=small, detr_encoder_config=small,
        detr_decoder_config={**small, "num_queries": 12},
        mask_decoder_config={"hidden_size": 32, "num_attention_heads": 2},
    )  # fmt: skip
    half = [0.5, 0.5, 0.5]
    settings = {"size": {"height": 56, "width": 56}, "image_mean": half, "image_std": half}
    save(transformers.Sam3Model(config), folder, settings)
    return folder


@pytest.fixture
def photo():
    rows, columns = np.mgrid[:45, :60]
    inside = np.hypot(rows - 20, columns - 30) < 12
    noise = np.random.default_rng(0).integers(0, 60, (45, 60, 3))
    return (noise + inside[..., None] * np.array([180, 40, 40])).astype(np.uint8)


@pytest.fixture
def scene(tmp_path, photo):
    """Three photos without poses."""
    folder = tmp_path / "scene"
    (folder / "images").mkdir(parents=True)
    for index in range(3):
        Image.fromarray(np.roll(photo, 5 * index, axis=1)).save(folder / f"images/a_{index}.png")
    return folder
