import pytest

from detailbase.descriptions.phrases import find_phrases


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
        ("it is next to it", []),
        ("", []),
    ],
)
def test_finds_what_names_things(sentence, expected):
    words = sentence.split()
    phrases = find_phrases(words)
    assert [text for _, text in phrases] == expected
    assert [words[head] for head, _ in phrases] == [text.split()[-1] for text in expected]
