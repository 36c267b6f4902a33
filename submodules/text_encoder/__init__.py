"""Sentences to word features, by a frozen language model."""

from .cache import CachedTextEncoder
from .features import TextEncoder, TextFeatures, check_text, is_same_text
from .hashed import HashTextEncoder
from .pretrained import PretrainedTextEncoder, make_encoder

__all__ = [
    "CachedTextEncoder",
    "HashTextEncoder",
    "PretrainedTextEncoder",
    "TextEncoder",
    "TextFeatures",
    "check_text",
    "is_same_text",
    "make_encoder",
]
