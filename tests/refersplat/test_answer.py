"""Responses to training sentences, to new ones, and to sentences unlike both."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from refer3d.language import COLORS
from refer3d.runs.errors import InputError
from refer3d.text_encoder import make_encoder
from refersplat.config import MatchConfig
from refersplat.field.network import ReferringField
from refersplat.language.answer import Answerer, Language
from refersplat.language.attributes import GroupAttributes
from refersplat.language.groups import Groups

SENTENCES = [
    "The red mug with a handle.",
    "A cup to drink coffee from.",
    "The ceramic vessel for hot drinks.",
    "The scissors with blue handles.",
    "A pair of shears for cutting paper.",
    "The tool with two sharp blades.",
]
NUM_GAUSSIANS = 30


def language(encoder) -> Language:
    member = torch.arange(NUM_GAUSSIANS)[:, None] // 10 == torch.arange(2)  # the last 10: neither
    places = torch.tensor([[0.0, 0, 0], [1, 0, 0]])
    colors = torch.full((2, len(COLORS)), 1 / len(COLORS))
    attributes = GroupAttributes(places, places + 0.1, colors)
    groups = Groups(torch.where(member, 6.0, -6.0), ((0, 1, 2), (3, 4, 5)), attributes)
    return Language.fit(groups, SENTENCES, encoder, MatchConfig())


@pytest.fixture(scope="module")
def answerer():
    encoder = make_encoder("auto")
    torch.manual_seed(0)
    field = ReferringField(encoder.dim).eval()
    features = torch.randn(NUM_GAUSSIANS, 16)
    return Answerer(field, features, torch.randn(NUM_GAUSSIANS, 3), encoder, language(encoder))


def groups_of(response) -> list[tuple[int, ...] | None]:
    return [result and result.groups for result in response.results]


def test_a_training_sentence_is_answered_by_its_group(answerer):
    response = answerer.respond(SENTENCES)
    assert groups_of(response) == [(0,)] * 3 + [(1,)] * 3
    expected = answerer.language.groups.logits.T[[0, 0, 0, 1, 1, 1]]
    assert_close(response.logits, expected)


@pytest.mark.parametrize("sentence", ["", "  ", "\n"])
def test_a_blank_sentence_is_refused(answerer, sentence):
    with pytest.raises(InputError, match="expected words"):
        answerer.respond(["the mug", sentence])


def test_a_new_sentence_is_answered_by_what_it_means(answerer):
    response = answerer.respond(["The mug of tea.", "What a tailor cuts with."])
    assert groups_of(response) == [(0,), (1,)]


def test_several_objects_are_answered_together_and_none_by_nothing(answerer):
    response = answerer.respond(["the mug and the scissors", "a dog", SENTENCES[3]])
    assert groups_of(response) == [(0, 1), (), (1,)]
    assert (response.logits[0, :20] > 0).all()
    assert (response.logits[0, 20:] < 0).all()
    assert (response.logits[1] < 0).all()


def test_the_field_answers_alone_without_a_language(answerer):
    alone = Answerer(answerer.field, answerer.features, answerer.positions, answerer.encoder)
    response = alone.respond(SENTENCES)
    assert response.results == [None] * len(SENTENCES)
    assert_close(response.logits, answerer.field_responses(SENTENCES))


def test_state_goes_through_a_file_without_code(answerer):
    file = io.BytesIO()
    state = {
        "text_dim": answerer.encoder.dim,
        "field": answerer.field.state_dict(),
        "features": answerer.features,
        "language": answerer.language.state_dict(),
    }
    torch.save(state, file)
    file.seek(0)
    learned = torch.load(file, weights_only=True)
    again = Answerer.from_state(learned, answerer.positions, answerer.encoder)
    queries = [*SENTENCES, "The mug of tea.", "A dog barking at the postman."]
    got, expected = again.respond(queries), answerer.respond(queries)
    assert_close(got.logits, expected.logits, rtol=0, atol=0)
    assert groups_of(got) == groups_of(expected)


def test_groups_are_named_by_their_category_or_else_by_their_sentences(answerer):
    fitted = answerer.language

    def names(*categories):
        return replace(fitted, categories=categories).names

    assert fitted.names == ["mug", "scissors"]
    assert names("kitchen/mug_01", "scissors") == ["kitchen/mug_01", "scissors"]
    assert names("tool", "tool") == ["mug", "scissors"]  # which would not tell them apart
    assert names("scissors", None) == ["scissors", "shears"]  # nor would the same name
    of_sentences = ["tool", "cup", "cup", "tool", "cup", "tool"]
    args = (fitted.groups, SENTENCES, answerer.encoder, fitted.options, of_sentences)
    assert Language.fit(*args).names == ["cup", "tool"]
    state = fitted.state_dict()
    again = Language.from_state(state | {"categories": ["a", "b"]}, answerer.encoder)
    assert again.names == ["a", "b"]
    del state["categories"]  # of an earlier version
    assert Language.from_state(state, answerer.encoder).names == fitted.names
    with pytest.raises(ValueError, match="categories: expected 2, got 1"):
        Language.from_state(state | {"categories": ["a"]}, answerer.encoder)


def test_options_in_files_of_earlier_versions_are_read(answerer):
    switches = dict.fromkeys(("nearest", "relation", "size", "field", "weigh"), True)
    switches |= dict.fromkeys(("ridge", "color", "apart"), False)
    state = answerer.language.state_dict()
    state["options"] = {"groups": True, "refine_steps": 7, **switches, "reject": 1.5}
    assert Language.from_state(state, answerer.encoder).options == MatchConfig(
        refine_steps=7, without=("ridge", "color", "decomposition"), reject=1.5
    )
