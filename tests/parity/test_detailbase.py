"""Detailbase, from clouds and sentences to the losses, against numbers of the published network.

Float32 results hold within 1e-4 of the largest value, on every row; measured worst: 2.1e-6, in the
masks of training and of evaluation. ``REFER_PARITY_DIR`` names another folder of cases.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from transformers import MPNetConfig, MPNetModel

from detailbase.config import Config
from detailbase.model.build import build
from detailbase.model.network import DetailBase
from detailbase.model.weights import load_weights
from detailbase.ops import segment_reduce
from detailbase.training.losses import mask_loss
from pointgroup_ops import voxelization, voxelization_idx
from refer3d.runs.config import load_yaml
from refer3d.text_encoder import PretrainedTextEncoder

HERE = Path(__file__).parent
PUBLISHED = load_yaml(HERE.parents[1] / "configs/detailbase/published.yaml", Config).network
CASES = sorted(Path(os.environ.get("REFER_PARITY_DIR") or HERE / "cases").glob("detailbase_*.npz"))
ROUNDS = [f"eval_aux{layer}_masks" for layer in range(6)] + ["eval_masks"]
TERMS = [f"eval_term_layer_{layer}_" for layer in range(6)] + ["eval_term_"]

# With --import-mode=importlib a test's folder is no package and not on the path.
spec = importlib.util.spec_from_file_location("parity_filling", HERE / "filling.py")
filling = importlib.util.module_from_spec(spec)
spec.loader.exec_module(filling)


@dataclass
class Case:
    path: Path
    values: dict[str, np.ndarray]

    def __getitem__(self, name: str) -> Tensor:
        return torch.from_numpy(np.asarray(self.values[name]))

    @property
    def mask(self) -> Tensor:  # [B, L]
        return self["in_lang_masks"].bool()

    @property
    def phrases(self) -> list[tuple[int, int]]:
        """Each phrase's sentence and query."""
        sentences = json.loads(str(self.values["in_t2os"]))
        return [(index, int(key) + 1) for index, keys in enumerate(sentences) for key in keys]

    @property
    def targets(self) -> list[Tensor]:
        return [self[f"in_gt_spmask_{index}"] for index in range(len(self.phrases))]

    @property
    def repeats(self) -> list[int]:
        """The number of sentences of each scene, for each of which the case repeats the scene."""
        return self["in_scenes_len"].tolist()

    @property
    def inputs(self) -> dict[str, Any]:
        return {
            "features": voxelization(self["in_feats"], self["in_v2p_map"], 4),
            "voxels": self["in_voxel_coords"],
            "point_to_voxel": self["in_p2v_map"].long(),
            "superpoints": self["in_superpoints"],
            "superpoint_starts": self["in_batch_offsets"].tolist(),
            "words": self["eval_lang"],
            "mask": self.mask,
            "scene_of_sentence": np.repeat(np.arange(len(self.repeats)), self.repeats).tolist(),
        }

    def network(self) -> DetailBase:
        network = build(PUBLISHED, text_dim=768).eval()
        load_weights(network, filling.filled_state(self.path.with_suffix(".json")), self.path)
        return network


@pytest.fixture(params=CASES, ids=lambda path: path.stem)
def case(request) -> Case:
    with np.load(request.param) as file:
        return Case(request.param, dict(file))


def assert_near(got: Tensor, want: Tensor, largest: Tensor | None = None) -> None:
    """Within 1e-4 of the largest value."""
    largest = want if largest is None else largest
    assert_close(got, want, rtol=0, atol=1e-4 * float(largest.abs().max()))


class Numbers:
    """A tokenizer whose words are ids."""

    model_max_length = 128
    unk_token_id = 3

    def __call__(self, text: str, add_special_tokens: bool = True, verbose: bool = True) -> dict:
        ids = [int(text) if text.strip().isdigit() else self.unk_token_id]
        return {"input_ids": [0, *ids, 2] if add_special_tokens else ids}


def test_points_get_the_published_voxels(case):
    of_points = case["in_voxel_coords"][case["in_p2v_map"].long()]
    scenes = int(of_points[:, 0].max()) + 1
    voxels, point_to_voxel, voxel_to_points = voxelization_idx(of_points, scenes, 4)
    assert torch.equal(voxels, case["in_voxel_coords"])
    assert torch.equal(point_to_voxel, case["in_p2v_map"])
    assert torch.equal(voxel_to_points, case["in_v2p_map"])
    features, sizes = case["in_feats"], torch.bincount(point_to_voxel)[:, None]
    total = features.new_zeros(len(voxels), features.shape[1])
    mean = total.index_add(0, point_to_voxel, features) / sizes
    # Up to three terms of order 1 in the same order; measured worst 0.
    assert_close(voxelization(features, voxel_to_points, 4), mean, rtol=0, atol=1e-6)


def test_text_features(case):
    model = MPNetModel(
        MPNetConfig(
            vocab_size=400,
            num_hidden_layers=1,
            num_attention_heads=12,
            intermediate_size=64,
            max_position_embeddings=130,
        )
    ).eval()
    state = filling.filled_state(case.path.with_suffix(".json"))
    prefix = "text_encoder."
    state = {name.removeprefix(prefix): state[name] for name in state if name.startswith(prefix)}
    model.load_state_dict(state)
    encoder = PretrainedTextEncoder("", "case", is_framed=True)
    encoder.model, encoder.tokenizer = model, Numbers()

    mask = case.mask
    rows = [row[keep].tolist() for row, keep in zip(case["in_lang_tokenss"], mask, strict=True)]
    features = encoder([[str(piece) for piece in row[1:-1]] for row in rows])
    assert torch.equal(features.mask, mask)
    # Measured on detailbase_a: 4e-7.
    assert_near(features.words[mask], case["eval_lang"][mask])


@pytest.mark.parametrize("is_folded", [False, True], ids=["definition", "folded"])
def test_superpoint_features(case, is_folded):
    inputs, starts = case.inputs, case["in_batch_offsets"].tolist()
    with torch.set_grad_enabled(not is_folded):
        voxels = case.network().backbone(inputs["features"], inputs["voxels"])
    points = voxels[inputs["point_to_voxel"]]
    pooled = segment_reduce(points, inputs["superpoints"], starts[-1], "mean").detach()
    scenes = [pooled[a:b] for a, b in itertools.pairwise(starts)]
    repeated = [s for s, count in zip(scenes, case.repeats, strict=True) for _ in range(count)]
    assert_near(torch.cat(repeated), case["eval_sp_feats"])


def test_masks_scores_and_losses_of_every_round(case):
    with torch.no_grad():
        predictions = case.network()(**case.inputs)
    for row, (sentence, query) in enumerate(case.phrases):
        masks = predictions.masks[sentence][:, query]
        for got, name in zip(masks, ROUNDS, strict=True):
            assert_near(got, case[name][row, : len(got)], largest=case[name])
        score = predictions.scores[-1, sentence, query]
        assert_near(score, case["eval_scores"][row, 0], largest=case["eval_scores"])
    losses = mask_loss(predictions, *zip(*case.phrases, strict=True), case.targets)
    assert_near(losses.total, case["eval_loss"])
    for round_, prefix in enumerate(TERMS):
        entropy = case[prefix + "mask_bce_loss"]
        assert_near(losses.cross_entropy[round_], entropy)
        assert_near(losses.dice[round_], case[prefix + "mask_dice_loss"])
        assert_near(losses.score[round_], case[prefix + "score_loss"], largest=entropy)


def test_training_with_batch_statistics(case):
    predictions = case.network().train()(**case.inputs)
    for row, (sentence, query) in enumerate(case.phrases):
        mask = predictions.masks[sentence][-1, query]
        assert_near(mask, case["train_masks"][row, : len(mask)], largest=case["train_masks"])
    losses = mask_loss(predictions, *zip(*case.phrases, strict=True), case.targets)
    assert_near(losses.total, case["train_loss"])


def test_there_are_cases():
    assert CASES
