"""From a sentence to its :class:`Description`."""

from __future__ import annotations

import functools

from refer3d.language.description import Description
from refer3d.language.reader import Reader
from refer3d.language.tokens import tokenize


@functools.lru_cache(4096)
def parse(sentence: str) -> Description:
    """Parses one sentence in English; of other languages the whole text is the description.

    Examples:
        >>> print(parse("Where is the smaller of the two red boxes next to the mug?"))
        anything
          among 'red boxes', 2, red
            near 'mug'
          rank 1 by -volume

    Raises:
        ImportError: The package with spaCy's model is absent.
    """
    tokens = tokenize(sentence)
    if not any(token[0].isalnum() for token in tokens):
        return Description(text=" ".join(sentence.split()))
    return Reader(tokens).read()
