"""Questions about imagined scenes, and encoders whose similarities have another scale."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch.nn.functional import normalize

from refer3d.text_encoder import TextFeatures, make_encoder
from refersplat.config import MatchConfig
from tests.refersplat.scenes import (
    BENCH,
    BENCH_QUESTIONS,
    DESK,
    DESK_QUESTIONS,
    PANTRY,
    PANTRY_QUESTIONS,
    PICNIC,
    PICNIC_QUESTIONS,
    ImaginedScene,
    Item,
)


class Changed:
    """An encoder whose embeddings go through a function."""

    def __init__(self, encoder, change):
        self.encoder, self.change, self.known = encoder, change, {}
        self.name, self.identity, self.dim = "changed", "changed", encoder.dim

    def __call__(self, sentences: Sequence[str]) -> TextFeatures:
        if new := [text for text in sentences if text not in self.known]:
            self.known |= dict(zip(new, self.encoder(new).embeddings, strict=True))
        plain = torch.stack([self.known[text] for text in sentences])
        words = torch.zeros(len(plain), 1, plain.shape[1])
        embeddings = normalize(self.change(plain), dim=1)
        return TextFeatures(words, torch.ones(len(plain), 1, dtype=torch.bool), embeddings)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return Changed(make_encoder("auto", tmp_path_factory.mktemp("text")), lambda x: x)


@pytest.fixture(scope="module")
def scenes(encoder):
    items = {"desk": DESK, "picnic": PICNIC, "pantry": PANTRY, "bench": BENCH}
    return {name: ImaginedScene(objects, encoder) for name, objects in items.items()}


QUESTIONS = {
    "desk": DESK_QUESTIONS,
    "picnic": PICNIC_QUESTIONS,
    "pantry": PANTRY_QUESTIONS,
    "bench": BENCH_QUESTIONS,
}


@pytest.mark.parametrize(
    ("name", "least"), [("desk", 37), ("picnic", 36), ("pantry", 44), ("bench", 23)]
)
def test_most_answers_are_right(scenes, name, least):
    right, wrong = scenes[name].score(QUESTIONS[name])
    assert right >= least, "\n".join(wrong)


@pytest.mark.parametrize(
    ("name", "sentence", "expected"),
    [
        ("desk", "the notebook", "notebook"),  # the laptop is a notebook computer
        ("pantry", "two bananas", "banana"),
        ("picnic", "the musical thing", "guitar"),
        ("picnic", "the readable thing", "paperback"),
        ("bench", "the wearable thing", "gloves"),
        ("bench", "the musical thing", ""),
        ("bench", "the edible thing", ""),
        ("pantry", "the furry thing", ""),
    ],
)
def test_the_same_noun_goes_before_another_and_adjectives_tell_properties(
    scenes, name, sentence, expected
):
    assert scenes[name](sentence) == {*expected.split()}


def test_each_of_two_colours_may_be_a_small_part(encoder):
    shears = Item((0, 0, 0, 20, 8, 2), {"gray": 0.2, "orange": 0.15}, ["a pair of scissors"] * 2)
    mug = Item((40, 0, 0, 8, 8, 10), {"white": 1.0}, ["a mug", "the white mug with a handle"])
    scene = ImaginedScene({"shears": shears, "mug": mug}, encoder)
    assert scene("the grey and orange scissors") == {"shears"}
    assert scene("the grey or green scissors") == {"shears"}


def test_prior_weights_answer_much_alone(encoder):
    """Also where an anchor is hardly probable: "the food closest to the lemonade"."""
    prior = ImaginedScene(PICNIC, encoder, MatchConfig(without=("fitted_weights",)))
    right, wrong = prior.score(PICNIC_QUESTIONS)
    assert right >= 26, "\n".join(wrong)


def common(embeddings):
    """Adds one vector to all: cosines of unrelated texts rise to 0.8."""
    return embeddings + 1.7 * normalize(torch.arange(embeddings.shape[1]) % 7 - 3.0, dim=0)


def rotated(embeddings):
    rng = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(*[embeddings.shape[1]] * 2, generator=rng)).Q
    return embeddings @ turn


def wider(embeddings):
    """Appends dimensions of which all texts have the same: 768 as BERT's."""
    return torch.cat([embeddings, torch.full_like(embeddings, 0.02)], dim=1)


def sharper(embeddings):
    return embeddings.sign() * embeddings.abs().pow(1.3)


@pytest.mark.parametrize("change", [common, rotated, wider, sharper])
def test_scale_of_the_encoder_changes_few_answers(encoder, scenes, change):
    """Constants would: with cosines of 0.8 between unrelated texts everything named everything."""
    other = ImaginedScene(DESK, Changed(encoder, change))
    sentences = [line.split(" | ")[1] for line in DESK_QUESTIONS.strip().splitlines()]
    same = sum(other(sentence) == scenes["desk"](sentence) for sentence in sentences)
    assert same >= len(sentences) - 4
