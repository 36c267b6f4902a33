"""Noun phrases of a sentence, with the words that they consist of."""

from __future__ import annotations

import re
from collections.abc import Sequence

from refer3d.language import lexicon as words_of
from refer3d.language.tokens import analyze, request_length, trigger

HEADS = words_of.word_set("nsubj nsubjpass dobj pobj pcomp dative attr appos conj oprd ROOT")
"""Dependencies of a noun that heads a phrase."""
QUALIFIERS = ("ADJ", "ADV", "NOUN", "NUM", "PROPN", "VERB", "CCONJ", "PART")
"""Parts of speech between a determiner and its noun."""


def find_phrases(words: Sequence[str]) -> list[tuple[int, str]]:
    """Finds the noun phrases that name things, in order.

    Nouns of places and properties ("the corner", "its color") name none.

    Args:
        words: Words and marks of one sentence or several; a contraction is one word.

    Returns:
        The index of each phrase's head, and the phrase without its determiner.

    Raises:
        ImportError: The package with spaCy's model is absent.
    """
    request = request_length(words)
    plain = [re.sub(r"(?<!ca)n['’]t$|(?<=\w)['’].*", "", word.lower()) for word in words]
    if not any(word[:1].isalnum() for word in plain[request:]):
        return []
    starts = {request} if plain[request] not in words_of.STARTS else set()
    if not words_of.STARTS.intersection(plain):  # "chair next to desk"
        for index in range(len(plain)):
            if match := trigger(plain, index):
                starts.add(index + match[1])
    dressed, places = [], []
    for index in range(request, len(plain)):
        for token in ("the", plain[index]) if index in starts else (plain[index],):
            dressed.append(token)
            places.append(index)
    phrases = []
    for head in analyze(dressed):
        if head.pos_ not in ("NOUN", "PROPN", "PRON") or head.dep_ not in HEADS:
            continue
        if any(child.dep_ == "nsubj" for child in head.children):
            continue  # a verb taken for a noun
        is_pronoun = head.pos_ == "PRON" and head.is_stop  # "bookshelf" is tagged so, too
        if is_pronoun or head.text in words_of.PRONOUNS | words_of.NO_THINGS:
            continue
        first = head
        while first.i > head.left_edge.i and first.nbor(-1).pos_ in QUALIFIERS:
            first = first.nbor(-1)
        phrases.append((places[head.i], " ".join(words[places[first.i] : places[head.i] + 1])))
    return phrases
