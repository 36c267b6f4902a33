"""Kinds of things: which noun includes which, in the sense that other nouns of a thing suggest."""

import pytest

from refer3d.language import kinds


def known(*nouns: str) -> frozenset[int]:
    return kinds.common_senses(nouns)


@pytest.mark.parametrize(
    ("noun", "called", "least", "most"),
    [
        ("fruit", ["banana"], 1, 1),
        ("crockery", ["mug", "cup"], 1, 1),
        ("instruments", ["guitar"], 1, 1),
        ("fresh produce", ["bell pepper", "vegetable"], 1, 1),
        ("rucksack", ["backpack"], 1, 1),  # a synonym
        ("poodle", ["dog", "pet"], 0.5, 0.5),  # one step more special
        ("violin", ["guitar", "instrument"], 0, 0),
        ("cat", ["dog", "animal", "pet"], 0, 0.1),
        ("food", ["dog", "animal", "pet"], 0, 0),  # "dog" is a sausage, too
        ("xyzzy", ["dog"], kinds.UNKNOWN, kinds.UNKNOWN),
        ("dog", ["xyzzy"], kinds.UNKNOWN, kinds.UNKNOWN),
    ],
)
def test_degree_to_which_a_noun_names_a_thing(noun, called, least, most):
    assert least <= kinds.degree(noun, known(*called)) <= most


def test_relatives_of_a_guitar():
    guitar = known("guitar")
    assert "banjo" in kinds.siblings(guitar)
    assert "stringed instrument" in kinds.superordinates(guitar)
    assert all(kinds.degree(noun, guitar) < 1 for noun in kinds.siblings(guitar))
    assert all(kinds.degree(noun, guitar) == 1 for noun in kinds.superordinates(guitar))


@pytest.mark.parametrize(
    ("plural", "singular"),
    [
        ("batteries", "battery"),
        ("knives", "knife"),
        ("shelves", "shelf"),
        ("boxes", "box"),
        ("mice", "mouse"),
    ],
)
def test_plurals_mean_their_singular(plural, singular):
    assert kinds.senses(plural) == kinds.senses(singular) != ()
