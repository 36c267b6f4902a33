"""Noun phrases of a sentence, by a rule.

A phrase ends before a word that cannot be inside one (a preposition, a verb, a pronoun, a mark);
its head is its last word that is no adjective. Heads that name places or properties ("the corner",
"left") are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def _list(text: str) -> frozenset[str]:
    return frozenset(text.split())


ENDS = _list("""
    about above across adjacent against along alongside also am among and appears are around as
    at attached away be been before behind being belongs below beneath beside between beyond
    both but by can choose close closest come comes containing contains could covered did do
    does down each either face faces facing far farthest filled find fixed for found from
    furthest hanging hangs has have having he her here him his holding holds i if in inside into
    is it its itself just leaning leans lie lies located look looking looks lying made me mounted my
    near nearest next no not of off on only onto opposite or our out outside over past pick
    placed please positioned rather resting rests sandwiched sat see seen select she sits sitting
    situated so standing stands straight than that their them then there these they this those
    through to too toward towards tucked turned under underneath up upon us very via want was we
    were what when where which while who whose will with within without would you your
""")
"""Prepositions, pronouns, conjunctions, and the verbs that descriptions use."""
STARTS = _list("a all an another any every some the")
"""Determiners: a phrase begins behind them."""
ADJECTIVES = _list("""
    beige big bigger biggest black blue bright brown center central circular clear closed closer
    colored dark different distant few first five four framed front furthest gray green grey
    high higher large larger largest last left leftmost light little long longer low lower
    lowest many medium metal middle most multiple nearby nearer new old one open orange other
    overall padded pink plain plastic pretty purple quite rear rectangular red right rightmost
    round same second several short shorter shortest silver single six small smaller smallest
    square tall taller tallest tan teal thin third three top two upper white wide wider wooden
    yellow
""")
NO_THINGS = _list("""
    area back base bottom center centre color colour corner direction distance edge end entrance
    front half item kind left length line middle object objects others pair part place position
    right room row scene set shape side sides size sort space spot style thing things top type
    view way wheels width
""")
"""Nouns of places and properties: in "the top of the table", only the table counts."""
NOUNS_TOO = _list("can face light stand")
"""Words of the lists above that are nouns at a phrase's end: "the tv stand"."""


def find_phrases(words: Sequence[str]) -> list[tuple[int, str]]:
    """Finds the noun phrases, in order.

    Args:
        words: Words of the sentence, as in the datasets' ``token``.

    Returns:
        The index of each phrase's head, and the phrase without its determiner.
    """
    phrases = []
    for begin, end in _runs([word.lower() for word in words]):
        head = end - 1
        is_named = begin > 0 and words[begin - 1].lower() in STARTS
        while head >= begin and _is_adjective(words[head].lower(), head > begin or is_named):
            head -= 1
        if head >= begin and words[head].lower() not in NO_THINGS:
            phrases.append((head, " ".join(words[begin : head + 1])))
    return phrases


def _runs(words: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yields the begin and end of each run of words that may be inside a phrase."""
    begin = 0
    for index, word in enumerate([*words, "."]):
        is_inside = index > begin or (index > 0 and words[index - 1] in STARTS)
        is_noun = word in NOUNS_TOO and is_inside and not _ends_before(words, index)
        if word in STARTS or (not is_noun and (word in ENDS or not word[:1].isalnum())):
            if index > begin:
                yield begin, index
            begin = index + 1


def _ends_before(words: Sequence[str], index: int) -> bool:
    """Tells whether a phrase follows, so that the word is a verb ("you can see a ...")."""
    return index + 1 < len(words) and words[index + 1] in ("be", "see", "find", *STARTS)


def _is_adjective(word: str, may_be_noun: bool) -> bool:
    return word.isdigit() or (word in ADJECTIVES and not (word in NOUNS_TOO and may_be_noun))
