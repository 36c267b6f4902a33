"""Files of sentences, and the words that name an object."""

import json

import pytest

from refersplat.masks.sentences import Subject, noun_phrase, noun_words, read_subjects
from tests.errors import raises


def write(folder, content):
    path = folder / ("s.txt" if isinstance(content, str) else "s.json")
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


def test_reads_a_sentence_per_line(tmp_path):
    subjects = read_subjects(write(tmp_path, "The red can.\n\n  a blue mug \r\nThe red can.\n—\n"))
    assert subjects == [Subject(None, ("The red can.",)), Subject(None, ("a blue mug",))]
    assert len({subject.stem for subject in subjects}) == 2


def test_reads_objects_with_sentences(tmp_path):
    content = {"soup can": ["the red can", "soup", "soup"], "mug": "a blue mug"}
    subjects = read_subjects(write(tmp_path, content))
    assert subjects == [
        Subject("soup can", ("the red can", "soup")),
        Subject("mug", ("a blue mug",)),
    ]
    assert subjects[1].stem == "mug"
    assert all(set(subject.stem).isdisjoint(" /\\") for subject in subjects)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("\n  \n", ["--sentences", "one per line"]),
        ({}, ["--sentences", "one per line"]),
        ({"mug": []}, ["mug", "delete the object"]),
        ({"mug": ["a mug", " "]}, ["mug[1]", "delete it"]),
        ({"mug": 3}, ["mug", "a list", "3"]),
        ({"mug": [None]}, ["mug[0]", "a string"]),
        (["a mug"], ["an object"]),
        ({"mug": ["the cup"], "cup": ["the cup"]}, ["mug", "cup", "the cup"]),
        ({"mug": ["a"], "Mug": ["b"]}, ["mug", "Mug"]),  # one file where letters' case is lost
    ],
)
def test_refuses_other_files(tmp_path, content, words):
    path = write(tmp_path, content)
    with raises(ValueError, path, *words):
        read_subjects(path)


def test_refuses_absent_and_broken_files(tmp_path):
    with raises(ValueError, "--sentences", tmp_path / "none.txt"):
        read_subjects(tmp_path / "none.txt")
    (tmp_path / "s.json").write_text("{")
    with raises(ValueError, tmp_path / "s.json", "JSON"):
        read_subjects(tmp_path / "s.json")


@pytest.mark.parametrize(
    ("sentence", "phrase", "words"),
    [
        ("The red can beside the blue bottle.", "red can", {"can"}),
        ("a box of crackers next to the mug", "box of crackers", {"box", "crackers"}),
        ("the smaller of the two cartons", "cartons", {"cartons"}),
        ("What someone drinks coffee from", "what someone drinks coffee from", set()),
    ],
)
def test_names_what_a_sentence_is_about(sentence, phrase, words):
    assert noun_phrase(sentence) == phrase
    assert noun_words(sentence) == words
