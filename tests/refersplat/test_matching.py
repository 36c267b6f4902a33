"""Taking sentences apart, attributes of a scene, and the match between the two."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from refer3d.text_encoder import make_encoder
from refersplat.config import MatchConfig
from refersplat.language.attributes import GroupAttributes, name_colors
from refersplat.language.matching import PRIOR, Matcher
from refersplat.language.phrases import COLORS, Relation, take_apart

OBJECTS = [
    (
        "The red mug with a handle, used for drinking coffee.",
        "A small ceramic cup standing next to the teapot.",
        "The red cup that one fills with something hot.",
        "The drinking vessel closest to the white pot.",
    ),
    (
        "The white porcelain teapot with a flower pattern.",
        "A round pot with a spout for brewing tea.",
        "The big white vessel with a lid, beside the mug.",
        "The tea pot between the cup and the scissors.",
    ),
    (
        "The scissors with blue handles.",
        "A pair of shears for cutting paper.",
        "The blue tool with two blades, far from the red cup.",
        "The sharp thing that a tailor uses, lying on the table.",
    ),
    (
        "The small blue eraser.",
        "A rubber to remove pencil marks, lying beside the scissors.",
        "The little blue block, which corrects mistakes.",
        "The eraser farthest from the mug.",
    ),
]
"""In a row, each 20 cm from the one before."""


def attributes() -> GroupAttributes:
    size = torch.tensor(
        [[0.08, 0.08, 0.1], [0.2, 0.14, 0.14], [0.18, 0.08, 0.01], [0.05, 0.02, 0.01]]
    )
    centre = torch.tensor([[0.0, 0, 0.05], [0.2, 0, 0.07], [0.4, 0, 0.005], [0.6, 0, 0.005]])
    colors = torch.zeros(4, len(COLORS))
    for group, name in enumerate(["red", "white", "blue", "blue"]):
        colors[group, list(COLORS).index(name)] = 1
    return GroupAttributes(centre - size / 2, centre + size / 2, colors)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return make_encoder("auto", tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def matcher(encoder):
    return Matcher.fit(OBJECTS, attributes(), encoder, MatchConfig())


@pytest.mark.parametrize(
    ("sentence", "own", "relations"),
    [
        ("The red mug.", "the red mug", ()),
        (
            "A box standing next to the yellow bottle.",
            "a box",
            (Relation("near", ("the yellow bottle",)),),
        ),
        (
            "The can between the bottle and the drill, used for soup.",
            "the can, used for soup",
            (Relation("between", ("the bottle", "the drill")),),
        ),
        (
            "The cup that is taller than the can but lower than the box.",
            "the cup",
            (Relation("taller", ("the can",)), Relation("lower", ("the box",))),
        ),
        ("The lamp taller than everything else.", "the lamp", (Relation("taller", ()),)),
        ("The jam that is spread on bread.", "the jam that is spread on bread", ()),
        ("The pen on the book.", "the pen", (Relation("above", ("the book",)),)),
        ("The drill lying on its side.", "the drill lying on its side", ()),
        ("Le bol rouge", "le bol rouge", ()),
        ("...", "...", ()),
        ("The is", "the", ()),
        ("next to the bowl", "next to the bowl", (Relation("near", ("the bowl",)),)),
    ],
)
def test_take_apart(sentence, own, relations):
    phrases = take_apart(sentence)
    assert (phrases.own, phrases.relations) == (own, relations)


def test_words_of_color_and_size():
    phrases = take_apart("The big crimson box with a small label, the tallest thing here.")
    assert phrases.head == "the big crimson box"
    assert phrases.colors == ("red",)
    assert phrases.sizes == (("volume", 1, 1.0), ("height", 1, 2.0))


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((0.7, 0.1, 0.1), "red"),
        ((0.9, 0.5, 0.1), "orange"),
        ((0.9, 0.8, 0.2), "yellow"),
        ((0.2, 0.5, 0.2), "green"),
        ((0.1, 0.2, 0.6), "blue"),
        ((0.4, 0.1, 0.5), "purple"),
        ((0.9, 0.4, 0.7), "pink"),
        ((0.4, 0.27, 0.15), "brown"),
        ((0.05, 0.05, 0.06), "black"),
        ((0.9, 0.9, 0.85), "white"),
        ((0.5, 0.5, 0.5), "gray"),
    ],
)
def test_name_colors(rgb, name):
    assert list(COLORS)[int(name_colors(torch.tensor([rgb])))] == name


@pytest.mark.parametrize(
    ("relation", "anchors", "expected"),
    [
        (Relation("near", ("",)), [0], 1),
        (Relation("far", ("",)), [0], 3),
        (Relation("between", ("", "")), [0, 2], 1),
        (Relation("taller", ("",)), [0], 1),
        (Relation("smaller", ("",)), [2], 3),
        (Relation("larger", ()), [], 1),
    ],
)
def test_relations_hold_where_the_scene_says_so(relation, anchors, expected):
    known = [torch.eye(4)[anchor] for anchor in anchors]
    scores = attributes().relation_score(relation, known)
    assert scores.argmax() == expected
    assert scores.exp().sum() < 1.2  # a distribution, and a little for what it rules out


def test_a_relation_to_nothing_known_tells_nothing():
    scores = attributes().relation_score(Relation("near", ("the moon",)), [torch.zeros(4)])
    assert_close(scores, scores[:1].expand(4))


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("What you sip a hot drink from.", 0),
        ("The crockery that pours Earl Grey.", 1),
        ("The cutter with two finger holes.", 2),
        ("The piece of rubber that wipes away writing.", 3),
        ("The blue object next to the teapot.", 2),
        ("The smallest blue object.", 3),
    ],
)
def test_finds_what_a_new_sentence_means(matcher, encoder, sentence, expected):
    assert matcher([sentence], encoder).logits.argmax() == expected


def test_strange_sentences_surprise(matcher, encoder):
    strange = matcher(["The green bicycle.", "A dog barking at the postman."], encoder)
    familiar = matcher(["The cup of coffee.", "The scissors."], encoder)
    assert strange.surprise.min() > 2
    assert familiar.surprise.max() < 1


def test_two_sentences_alike_by_chance_do_not_make_all_others_strange(encoder):
    said = [("The red ball.", "A red ball."), ("The blue box.",), ("The white cup.",)]
    known = GroupAttributes(*(value[:3] for value in vars(attributes()).values()))
    for without in ((), ("fitted_weights",)):
        fitted = Matcher.fit(said, known, encoder, MatchConfig(without=without))
        assert fitted.usual[0] > 0.9
        asked = fitted(["The red ball, please.", "A dog barking at the postman."], encoder)
        assert asked.surprise[0] < 1 < 3 < asked.surprise[1] < 100


def test_a_sentence_alone_matches_as_in_a_batch(matcher, encoder):
    sentences = [text for texts in OBJECTS for text in texts]
    whole = matcher(sentences, encoder).logits
    # Float32 products of other shapes; measured 6e-6 of logits around 10.
    assert_close(matcher(sentences[5:6], encoder).logits, whole[5:6], rtol=1e-5, atol=3e-5)


def test_order_of_groups_permutes_the_scores(matcher, encoder):
    order = [2, 0, 3, 1]
    moved = GroupAttributes(*(value[order] for value in vars(attributes()).values()))
    other = Matcher.fit([OBJECTS[i] for i in order], moved, encoder, MatchConfig())
    asked = ["The cup of coffee.", "The blue thing far from the mug."]
    # LBFGS stops at a gradient of 1e-7; measured 2e-3 of logits around 10.
    assert_close(
        other(asked, encoder).logits, matcher(asked, encoder).logits[:, order], rtol=1e-2, atol=1e-2
    )


def test_weights_follow_what_holds_up(encoder):
    """A field that is right about held-out sentences gains weight, one that is wrong loses it."""
    weights = {}
    for shift in (0, 1):
        held_out = {texts[0]: torch.eye(4)[(i + shift) % 4] for i, texts in enumerate(OBJECTS)}
        fitted = Matcher.fit(OBJECTS, attributes(), encoder, MatchConfig(), held_out)
        weights[shift] = fitted.state_dict()["weights"]["field"]
    assert weights[0] > PRIOR["field"] > weights[1] > 0


@pytest.mark.parametrize("name", [*PRIOR, "decomposition", "fitted_weights"])
def test_every_ingredient_can_be_taken_away(encoder, name):
    fitted = Matcher.fit(OBJECTS, attributes(), encoder, MatchConfig(without=(name,)))
    assert name not in fitted.state_dict()["weights"]
    assert fitted(["The scissors."], encoder).logits.argmax() == 2


@pytest.mark.parametrize("count", [1, 2])
def test_few_objects_and_one_sentence_each(encoder, count):
    few = GroupAttributes(*(value[:count] for value in vars(attributes()).values()))
    fitted = Matcher.fit([texts[:1] for texts in OBJECTS[:count]], few, encoder, MatchConfig())
    match = fitted(["The mug.", "A dog barking."], encoder)
    assert match.logits.shape == (2, count)
    assert match.logits[0].argmax() == 0
    assert match.surprise[0] < match.surprise[1]


def test_state(matcher, encoder):
    again = Matcher.from_state(matcher.state_dict(), attributes(), MatchConfig())
    asked = ["The cup of coffee."]
    for got, expected in zip(again(asked, encoder), matcher(asked, encoder), strict=True):
        assert_close(got, expected, rtol=0, atol=0)
