"""Noun phrases of a sentence, with the words that they consist of."""

from __future__ import annotations

import re
from collections.abc import Sequence

from refer3d.language import lexicon as words_of
from refer3d.language.tokens import analyze, request_length, trigger


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
    doc = analyze(dressed)
    phrases = []
    for chunk in doc.noun_chunks:
        head = chunk.root.i
        begins = [i + 1 for i in range(chunk.start, head) if doc[i].text in words_of.STARTS]
        first = max(begins, default=chunk.start)  # spaCy joins "near it a lamp"
        is_pronoun = chunk.root.pos_ == "PRON" and chunk.root.is_stop  # "bookshelf" is tagged so
        if is_pronoun or doc[head].text in words_of.PRONOUNS | words_of.NO_THINGS:
            continue
        phrases.append((places[head], " ".join(words[places[first] : places[head] + 1])))
    return phrases
