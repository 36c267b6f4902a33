"""The referring field against numbers of the published modules.

``REFER_PARITY_DIR`` names another folder of cases to run instead of the ones kept here.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from refer3d.text_encoder import TextFeatures
from refersplat.field.losses import contrastive_loss, select_responding
from refersplat.field.network import ReferringField

HERE = Path(__file__).parent
CASES = sorted(Path(os.environ.get("REFER_PARITY_DIR") or HERE / "cases").glob("refersplat_*.npz"))

# With --import-mode=importlib a test's folder is no package and not on the path.
spec = importlib.util.spec_from_file_location("parity_filling", HERE / "filling.py")
filling = importlib.util.module_from_spec(spec)
spec.loader.exec_module(filling)


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as case:
        return dict(case)


def field_of(path: Path) -> ReferringField:
    state = filling.filled_state(path.with_suffix(".json"))
    field = ReferringField(
        text_dim=state["mlp1.fc1.weight"].shape[1],
        feature_dim=state["mlp2.fc1.weight"].shape[1],
        width=state["mlp2.fc3.weight"].shape[0],
    )
    field.load_state_dict(state)
    return field


def whole(words: Tensor) -> TextFeatures:
    """Text in which every token counts."""
    mask = torch.ones(words.shape[:2], dtype=torch.bool)
    return TextFeatures(words, mask, embeddings=words.mean(dim=1))


def assert_near(got: Tensor, want: np.ndarray, tolerance: float) -> None:
    """Within a share of the largest value."""
    want = torch.from_numpy(np.atleast_1d(want))
    assert_close(got.reshape(want.shape), want, rtol=0, atol=tolerance * float(want.abs().max()))


@pytest.mark.parametrize("is_folded", [False, True], ids=["definition", "folded"])
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_matches_published_modules(path: Path, is_folded: bool):
    case = load(path)
    field = field_of(path)
    features = torch.from_numpy(case["language_feature"]).requires_grad_()
    positions = torch.from_numpy(case["xyz"])
    text = torch.from_numpy(case["text"])
    ratio = round(float(case["ratio"]), 6)  # stored as float32
    same_object = torch.from_numpy(case["category"][:, None] == case["category"])
    parameters = {
        "mlp1_fc1": field.mlp1.fc1.weight,
        "mlp3_fc3": field.mlp3.fc3.weight,
        "q": field.cross_attention.q_linear.weight,
        "language_feature": features,
    }

    for index in range(len(text)):
        sentence = whole(text[index, None, : int(case[f"s{index}_tokens"])])
        words = field.embed_words(sentence)
        if is_folded:
            interaction = field.interact(features, positions, words, sentence.mask)
            responses = interaction.responses
            mean = interaction.mean(select_responding(responses, ratio))
        else:
            attended = field(features, positions, words, sentence.mask)
            responses = (attended @ words.sum(dim=1)[..., None])[..., 0]
            mean = attended[:, select_responding(responses, ratio)[0]].mean(dim=1)
        everything = whole(text)
        sentences = TextFeatures(
            field.embed_words(everything), everything.mask, everything.embeddings
        ).sentence()
        contrastive = contrastive_loss(
            mean, sentences, same_object[index, None], float(case["temperature"])
        )

        # Measured on refersplat_a: values 7e-7, gradients 2e-6.
        assert_near(responses, case[f"s{index}_score"], 1e-4)
        assert_near(mean, case[f"s{index}_mean"], 1e-4)
        assert_near(contrastive, case[f"s{index}_contrastive"], 1e-4)
        cotangent = torch.from_numpy(case[f"s{index}_score_cotangent"])
        gradients = torch.autograd.grad(
            (responses * cotangent).sum() + contrastive, list(parameters.values())
        )
        for name, got in zip(parameters, gradients, strict=True):
            want = torch.from_numpy(np.asarray(case[f"s{index}_grad_{name}"]))
            if want.ndim == 0:  # only the norm was kept
                got = got.norm()
            assert (got - want).norm() <= 1e-3 * want.norm(), f"{name} of sentence {index}"


# A folder without cases gives no test, instead of one that is skipped.
test_matches_published_modules.__test__ = bool(CASES)
