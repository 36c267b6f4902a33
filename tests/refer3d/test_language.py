"""Trees of questions: as documented, whatever the question's dress, and for odd input."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refer3d.language import Description, Grade, Rank, parse, tokens

PAGE = Path(__file__).parents[2] / "docs" / "language.md"
TREES = re.findall(r"```text\n(.*?)\n(.*?)```", PAGE.read_text().split("<!-- trees -->")[1], re.S)


def test_documentation_has_thirty_trees():
    assert len(TREES) >= 30


@pytest.mark.parametrize(("sentence", "tree"), TREES, ids=[sentence for sentence, _ in TREES])
def test_tree_is_as_documented(sentence, tree):
    assert str(parse(sentence)) == "\n".join(line[2:] for line in tree.splitlines())


@pytest.mark.parametrize(
    "sentence",
    [
        "The red mug next to the bowl.",
        "THE RED MUG NEXT TO THE BOWL",
        "red mug next to the bowl",
        "Show me the red mug next to the bowl!",
        "where's the red mug next to the bowl?",
        "could you please find the red mug next to the bowl",
        "I'm looking for a red mug next to the bowl.",
    ],
)
def test_dress_of_a_question_does_not_matter(sentence):
    assert parse(sentence) == parse("the red mug next to the bowl")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("the cup that isn't red", "the cup that is not red"),
        ("the cup that isnt red", "the cup that is not red"),
        ("the leftmost cup", "the cup on the left"),
        ("the cup whose nearest neighbour is the bowl", "the cup nearest to the bowl"),
        ("everything but the bowl", "everything except the bowl"),
        ("all but the bowl", "everything except the bowl"),
        ("neither the bowl nor the cup", "everything except the bowl and the cup"),
        ("the cups but not the tall one", "the cups except the tallest"),
        ("the cups, not the red one", "the cups without the red one"),
        ("the cups apart from the red ones", "the cups other than the red ones"),
        ("everything yellow but no fruit", "everything yellow except fruit"),
        ("nothing but the bowl", "the bowl"),
        ("not one of the cups", "none of the cups"),
        ("not a single cup", "no cup"),
        ("the cup with nothing on it", "the cup without anything on it"),
        ("the cup that has no spoon in it", "the cup without a spoon in it"),
        ("the cup without anything next to it", "the cup with nothing next to it"),
        ("the cup to the left of everything else", "the leftmost cup"),
        ("the cup behind all the others", "the cup at the back"),
        ("the cup next to no bowl", "the cup that is not next to a bowl"),
        ("the cups not on the tray", "the cups that are not on the tray"),
        (
            "the things on the box but not on the tray",
            "the things on the box except those on the tray",
        ),
        ("I want the cup. Not the red one.", "the cup but not the red one"),
        ("which of the two bowls is smaller?", "the smaller of the two bowls"),
        ("either of the cups", "one of the cups"),
        ("Which one is taller, the mug or the vase?", "the taller one of the mug and the vase"),
        ("the mug or the vase, which is taller?", "the taller one of the mug and the vase"),
        ("There is a box on the mat. What is in it?", "what is in the box that is on the mat?"),
        ("There are two cups. I mean the left one.", "the left one of the two cups"),
        ("the red cup and the blue one", "the red cup and the blue cup"),
        ("the red and the blue cup", "the red cup and the blue cup"),
        ("the left and the right cup", "the left cup and the right cup"),
        ("the cup next to the red one", "the cup next to the red cup"),
        ("mug, plate and bowl", "the mug, the plate and the bowl"),
        ("the nearest cup", "the cup closest to me"),
        ("the one that is closer to me", "the thing closest to the camera"),
        ("the cup nearer the lamp than the bowl", "the cup closer to the lamp than to the bowl"),
        ("the mug the spoon is in", "the mug with a spoon in it"),
        ("the mug in which the spoon stands", "the mug with a spoon in it"),
        ("the last cup on the right", "the rightmost cup"),
        ("the second to last cup from the left", "the last but one cup from the left"),
        ("the cup on my left", "the cup on the left"),
        ("the cup further left", "the cup farthest to the left"),
        ("the can on top", "the top can"),
        ("not the cup but the bowl", "the bowl except the cup"),
        ("neither the cup nor the mug but the bowl", "the bowl"),
        ("which things are red?", "the things that are red"),
        ("what the cup stands on", "the thing that the cup stands on"),
        ("the food nearest the back", "the food at the back"),
        ("the farthest cup on the left", "the cup farthest to the left"),
        ("the thing in the jar or in the bowl", "the thing in the jar or the bowl"),
        ("Where did I put the scissors?", "the scissors"),
    ],
)
def test_same_meaning_same_tree(one, other):
    assert parse(one) == parse(other)


def test_it_is_the_first_noun_or_the_nearest():
    sentence = "the lamp next to the box with a pen in it"
    first, nearest = parse(sentence), parse(sentence, is_near=True)
    assert [r.kind for r in first.relations] == ["near", "around"]
    assert [r.kind for r in nearest.relations] == ["near"]
    assert nearest.relations[0].anchors[0] == parse("the box with a pen in it")
    for anchor, is_near in ((parse("the cup on the tray"), False), (parse("the tray"), True)):
        _, sugar = parse("the cup on the tray and the sugar in it", is_near).parts
        assert sugar.relations[0].anchors == (anchor,)


def test_nested_anchors():
    description = parse("the cup on the tray that is next to the tallest vase")
    (on,) = description.relations
    (near,) = on.anchors[0].relations
    assert (on.kind, near.kind) == ("on", "near")
    assert near.anchors[0].ranks == (Rank(Grade("height", 1)),)


@pytest.mark.parametrize(
    "sentence",
    ["", "   ", "?!", "🍌", "🍌 next to 🍎",
     "la tasse rouge à côté du bol", "красная кружка", "((()",
     "of of of", "not", "between and", "the the the", "42", "the ① mugs", "x" * 5000, "mug " * 3000,
     "between between the and and", "what", "is it?", "the cup\nthe bowl", "<b>mug</b>", "a\tb"],
)  # fmt: skip
def test_odd_input_gives_a_description(sentence):
    assert isinstance(parse(sentence), Description)


WORDS = st.sampled_from(
    [
        "the",
        "a",
        "cup",
        "red",
        "bowl",
        "and",
        "or",
        "not",
        "between",
        "on",
        "next",
        "to",
        "of",
        "that",
        "is",
        "left",
        "tallest",
        "two",
        "both",
        "which",
        ",",
        "than",
        "closer",
        "without",
        "anything",
        "it",
        "with",
        "in",
        "second",
        "from",
        "all",
        "except",
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=14))
def test_any_words_give_a_description(words):
    assert isinstance(parse(" ".join(words)), Description)


def test_missing_model_names_the_package(monkeypatch):
    monkeypatch.setattr(tokens, "MODEL", "no_such_model")
    tokens.pipeline.cache_clear()
    with pytest.raises(ImportError, match="pip install en-core-web-sm"):
        tokens.pipeline()
    tokens.pipeline.cache_clear()
