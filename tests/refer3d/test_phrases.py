"""Noun phrases: those of descriptions of rooms, whatever the sentence's dress."""

import pytest

from detailbase.descriptions.references import split_words
from refer3d.language import find_phrases


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("the brown chair next to the two windows", ["brown chair", "two windows"]),
        ("there is a trash can on the floor .", ["trash can", "floor"]),
        ("this is a can . you can see a lamp behind it", ["can", "lamp"]),
        ("the tv stand stands in the corner of the room", ["tv stand"]),
        ("it is black in color , to the left of the desk", ["desk"]),
        ("a pillow and a towel lie on top of the bed", ["pillow", "towel", "bed"]),
        ("it is the smaller of the two file cabinets", ["two file cabinets"]),
        ("the light over the sink", ["light", "sink"]),
        ("the books on the shelf please", ["books", "shelf"]),
        ("the window nearest to the bookshelf", ["window", "bookshelf"]),
        ("a chair and not far from it a lamp", ["chair", "lamp"]),
        ("it is next to it", []),
        ("", []),
        ("?!", []),
        ("armchair", ["armchair"]),
        ("chair next to desk", ["chair", "desk"]),
        ("The TV stand.", ["tv stand"]),
        ("Show me the brown armchair!", ["brown armchair"]),
        ("please find the tv", ["tv"]),
        ("where's the trash can?", ["trash can"]),
        ("isn't there a lamp on the table?", ["lamp", "table"]),
        ("it's the lamp that doesn't stand on the desk", ["lamp", "desk"]),
        ("I can't find the man's chair", ["man's chair"]),
        ("which of the monitors is closest to the window?", ["monitors", "window"]),
    ],
)
def test_finds_phrases_that_name_things(sentence, expected):
    words = split_words(sentence)
    phrases = find_phrases(words)
    assert [text for _, text in phrases] == expected
    assert [words[head] for head, _ in phrases] == [text.split()[-1] for text in expected]
