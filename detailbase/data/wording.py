"""Other wordings of descriptions, and descriptions of what is absent."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from detailbase.descriptions.references import SENTENCE, Phrase, Reference


def _list(text: str) -> frozenset[str]:
    return frozenset(text.split())


ARTICLES = _list("a an the")
NAMERS = ARTICLES | _list("this that some two three four five its")
"""Words that a noun phrase begins with or behind."""
LONGEST_PHRASE = 5
"""Most words of a noun phrase that is found by its article."""
REQUESTS = (("show", "me"), ("find",), ("mark",), ("where", "is"), ("select",), ("i", "mean"))
SHORT = 40
"""Most words of a description that another word may be added to."""
SIDES = {"left": "right", "leftmost": "rightmost", "lefthand": "righthand"}
SIDES |= {"left-hand": "right-hand", "left-most": "right-most", "left-side": "right-side"}
SIDES |= {right: left for left, right in SIDES.items()}
BY_SIDE = _list("the its your his her their my to on of far upper lower top bottom")
"""Words before "right" that make it a side."""
ADVERB = _list("""
    above across adjacent against at behind below beneath beside between by in inside near next on
    over there under underneath up where
""")
"""Words behind "right" that make it mean "directly", unless one of ``BY_SIDE`` stands before."""

Named = Mapping[tuple[str, str], frozenset[int]]


def named_objects(references: Iterable[Reference]) -> Named:
    """Collects the objects of each scan that a word names: by (scan, word) their ids."""
    named: dict[tuple[str, str], set[int]] = defaultdict(set)
    for reference in references:
        for phrase in reference.phrases:
            if phrase.key != SENTENCE:
                named[reference.scene_id, head(reference, phrase)].update(phrase.object_ids)
    return {key: frozenset(ids) for key, ids in named.items()}


def head(reference: Reference, phrase: Phrase) -> str:
    """Returns the name in a phrase: its word, in lower case and without a plural's s.

    That of the whole sentence is empty.
    """
    word = "" if phrase.key == SENTENCE else reference.words[int(phrase.key)].lower()
    return word if word.endswith("ss") else word.removesuffix("s")


def mirror(reference: Reference) -> Reference:
    """Swaps left and right, as in a mirror; "right next to" stays."""
    words = reference.words
    swapped = tuple(
        SIDES.get(word.lower(), word) if _is_side(words, index) else word
        for index, word in enumerate(words)
    )
    return dataclasses.replace(reference, words=swapped)


def _is_side(words: Sequence[str], index: int) -> bool:
    if words[index].lower() != "right":
        return True
    before, after = words[index - 1 : index], words[index + 1 : index + 2]
    is_named = bool(before) and before[0].lower() in BY_SIDE
    return is_named or not (after and after[0].lower() in ADVERB)


def with_sentence(reference: Reference) -> Reference:
    """Adds the whole sentence as a phrase that means the described object, if there is none."""
    has_sentence = any(phrase.key == SENTENCE for phrase in reference.phrases)
    if has_sentence or not reference.object_id.isdigit():
        return reference
    phrase = Phrase(SENTENCE, (int(reference.object_id),))
    return dataclasses.replace(reference, phrases=(phrase, *reference.phrases))


def reword(reference: Reference, named: Named, rng: np.random.Generator) -> Reference:
    """Says a description otherwise, as people do: a phrase of it alone, a request, no articles,
    another end.

    Args:
        reference: The description.
        named: Objects by name. A phrase alone is one whose name fits no other object of the scan.
        rng: Source of the choice.
    """
    changes = rng.random(4) < (0.5, 0.4, 0.4, 0.5)
    if changes[0]:
        reference = phrase_alone(reference, named, rng)
    if changes[1] and len(reference.words) <= SHORT:
        reference = _edit(reference, prefix=REQUESTS[int(rng.integers(len(REQUESTS)))])
    if changes[2]:
        is_article = [word.lower() in ARTICLES for word in reference.words]
        reference = _edit(reference, [i for i, article in enumerate(is_article) if not article])
    if changes[3] and len(reference.words) > 1:
        if reference.words[-1] == ".":
            reference = _edit(reference, range(len(reference.words) - 1))
        else:
            reference = dataclasses.replace(reference, words=(*reference.words, "."))
    return reference


def phrase_alone(reference: Reference, named: Named, rng: np.random.Generator) -> Reference:
    """Takes one phrase out of its description, if its name fits no other object of the scan."""
    unique = [
        phrase
        for phrase in reference.phrases
        if phrase.object_ids
        and named.get((reference.scene_id, head(reference, phrase))) == {*phrase.object_ids}
    ]
    if not unique:
        return reference
    phrase = unique[int(rng.integers(len(unique)))]
    end = int(phrase.key)
    begin = end
    while begin > max(0, end - LONGEST_PHRASE) and reference.words[begin].lower() not in NAMERS:
        begin -= 1
    if reference.words[begin].lower() not in NAMERS:
        begin = end
    alone = dataclasses.replace(reference, phrases=(phrase,))
    alone = _edit(alone, range(begin, end + 1))
    ids = ",".join(map(str, phrase.object_ids))
    return with_sentence(dataclasses.replace(alone, object_id=ids))


def absent(reference: Reference, scene_id: str, named: Named) -> Reference | None:
    """Turns a description of another scan into one that means nothing in a scan.

    The sentence means nothing if a name in it is not used in the scan, and so do phrases of such
    names. The others may mean something, and are left out.

    Returns:
        The description, or None where all its names are used in the scan.
    """
    known = {word for scene, word in named if scene == scene_id}
    missing = [
        p for p in reference.phrases if p.key != SENTENCE and head(reference, p) not in known
    ]
    if not missing:
        return None
    phrases = (Phrase(SENTENCE, ()), *(Phrase(phrase.key, ()) for phrase in missing))
    return dataclasses.replace(reference, scene_id=scene_id, phrases=phrases)


def _edit(
    reference: Reference, kept: Sequence[int] | None = None, prefix: tuple[str, ...] = ()
) -> Reference:
    """Keeps some words, sets others before them, and moves the phrases' keys along."""
    kept = range(len(reference.words)) if kept is None else kept
    places = {old: new + len(prefix) for new, old in enumerate(kept)}
    phrases = tuple(
        phrase
        if phrase.key == SENTENCE
        else Phrase(str(places[int(phrase.key)]), phrase.object_ids)
        for phrase in reference.phrases
    )
    words = (*prefix, *(reference.words[index] for index in kept))
    return dataclasses.replace(reference, words=words, phrases=phrases)
