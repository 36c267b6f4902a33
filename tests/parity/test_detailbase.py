"""Text, decoder and loss of detailbase against numbers of the published network.

``REFER_PARITY_DIR`` names another folder of cases to run instead of the ones kept here.
"""

from __future__ import annotations

import importlib.util
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from transformers import MPNetConfig, MPNetModel

from detailbase.config import Config
from detailbase.model.build import build
from detailbase.model.network import Predictions
from detailbase.model.weights import put_weights
from detailbase.training.losses import mask_loss
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
    def superpoints(self) -> list[Tensor]:
        """The features of each sentence's scene."""
        is_real, features = ~self["eval_batch_mask"], self["eval_sp_feats"]
        if len(features) == is_real.numel():
            features = features[is_real.flatten()]
        return list(features.split(is_real.sum(dim=1).tolist()))

    def predict(self) -> Predictions:
        """What our decoder makes of the published features, sentence by sentence."""
        state = filling.filled_state(self.path.with_suffix(".json"))
        model = build(PUBLISHED, text_dim=768).eval()
        put_weights(model, state, self.path)
        answers = [
            model.decoder(scene, words[None], mask[None])
            for scene, words, mask in zip(
                self.superpoints, self["eval_lang"], self.mask, strict=True
            )
        ]
        return Predictions(
            tuple(answer.masks[:, 0] for answer in answers),
            torch.cat([answer.scores for answer in answers], dim=1),
        )


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


def test_masks_and_scores_of_every_round(case):
    predictions = case.predict()
    for row, (sentence, query) in enumerate(case.phrases):
        masks = predictions.masks[sentence][:, query]
        for got, name in zip(masks, ROUNDS, strict=True):
            # Measured on detailbase_a: 1e-6 of the largest.
            assert_near(got, case[name][row, : len(got)], largest=case[name])
        score = predictions.scores[-1, sentence, query]
        assert_near(score, case["eval_scores"][row, 0], largest=case["eval_scores"])


def test_loss_and_its_terms(case):
    sentences, queries = zip(*case.phrases, strict=True)
    losses = mask_loss(case.predict(), sentences, queries, case.targets)
    assert_near(losses.total, case["eval_loss"])
    for round_, prefix in enumerate(TERMS):
        entropy = case[prefix + "mask_bce_loss"]
        assert_near(losses.cross_entropy[round_], entropy)
        assert_near(losses.dice[round_], case[prefix + "mask_dice_loss"])
        assert_near(losses.score[round_], case[prefix + "score_loss"], largest=entropy)


def test_there_are_cases():
    assert CASES
