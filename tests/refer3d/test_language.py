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
    ],
)
def test_same_meaning_same_tree(one, other):
    assert parse(one) == parse(other)


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
