"""Other wordings of descriptions, and descriptions of what is absent."""

from __future__ import annotations

import numpy as np
import pytest

from detailbase.data.wording import (
    absent,
    mirror,
    named_objects,
    phrase_alone,
    reword,
    with_sentence,
)
from detailbase.descriptions.references import SENTENCE, Phrase, Reference


def describe(text: str, scene_id: str = "room", object_id: str = "1", **objects) -> Reference:
    """A description whose words of the given names are phrases; their first place counts."""
    words = tuple(text.split())
    phrases = tuple(Phrase(str(words.index(word)), ids) for word, ids in objects.items())
    return Reference(scene_id, "0", words, phrases, object_id=object_id)


CHAIR = describe("the brown chair stands next to a window .", chair=(1,), window=(4,))


@pytest.mark.parametrize(
    ("text", "mirrored"),
    [
        ("the left chair", "the right chair"),
        ("on the right of the desk", "on the left of the desk"),
        ("it is right of a desk", "it is left of a desk"),
        ("right next to the leftmost desk", "right next to the rightmost desk"),
        ("it stands right behind it , on its right in the corner",
         "it stands right behind it , on its left in the corner"),
        ("a can is to the right", "a can is to the left"),
        ("the bright chair", "the bright chair"),
    ],
)  # fmt: skip
def test_a_mirror_swaps_sides_but_not_adverbs(text, mirrored):
    reference = describe(text)
    assert " ".join(mirror(reference).words) == mirrored
    assert mirror(mirror(reference)) == reference


def test_a_phrase_alone_has_a_name_that_fits_no_other_object():
    other = describe("a chair", object_id="2", chair=(2,))
    named = named_objects([CHAIR, other])
    alone = phrase_alone(CHAIR, named, np.random.default_rng(0))
    assert alone.words == ("a", "window")
    assert alone.phrases == (Phrase(SENTENCE, (4,)), Phrase("1", (4,)))
    assert phrase_alone(other, named, np.random.default_rng(0)) == other
    everything = named_objects([CHAIR])
    seen = {phrase_alone(CHAIR, everything, np.random.default_rng(s)).words for s in range(10)}
    assert seen == {("the", "brown", "chair"), ("a", "window")}


def test_phrases_move_with_their_words():
    named, texts = named_objects([CHAIR]), set()
    for seed in range(60):
        other = reword(CHAIR, named, np.random.default_rng(seed))
        texts.add(" ".join(other.words))
        for phrase in other.phrases:
            if phrase.key != SENTENCE:
                name = other.words[int(phrase.key)]
                assert phrase.object_ids == {"chair": (1,), "window": (4,)}[name]
    assert " ".join(CHAIR.words) in texts
    assert any(text.startswith("show me") and text.endswith(" window") for text in texts)
    assert "brown chair stands next to window" in texts


def test_the_whole_sentence_means_its_object():
    assert with_sentence(CHAIR).phrases == (Phrase(SENTENCE, (1,)), *CHAIR.phrases)
    assert with_sentence(with_sentence(CHAIR)) == with_sentence(CHAIR)


def test_a_description_of_another_scan_means_nothing_if_a_name_is_absent():
    here = [describe("a chair", "hall", chair=(7,)), describe("the door", "hall", door=(8,))]
    named = named_objects([CHAIR, *here])
    # There are chairs, but no window: nothing is a chair by a window, but "chair" may mean some.
    moved = absent(CHAIR, "hall", named)
    assert moved is not None
    assert moved.scene_id == "hall"
    assert moved.phrases == (Phrase(SENTENCE, ()), Phrase("7", ()))
    assert absent(describe("a chair", chair=(1,)), "hall", named) is None
    bed = describe("the bed by the door", bed=(1,), door=(2,))
    moved = absent(bed, "hall", named_objects([bed, *here]))
    assert moved is not None
    assert [phrase.key for phrase in moved.phrases] == [SENTENCE, "1"]


def test_plurals_have_the_name_of_their_singular():
    both = describe("the two chairs by the glass", chairs=(1, 2), glass=(3,))
    named = named_objects([CHAIR, both])
    assert named["room", "chair"] == {1, 2}
    assert named["room", "glass"] == {3}
