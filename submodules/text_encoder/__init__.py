"""Sentences to word features, by a frozen language model."""

from .cache import CachedTextEncoder
from .features import TextEncoder, TextFeatures
from .hashed import HashTextEncoder
from .pretrained import PretrainedTextEncoder, make_encoder

__all__ = [
    "CachedTextEncoder",
    "HashTextEncoder",
    "PretrainedTextEncoder",
    "TextEncoder",
    "TextFeatures",
    "make_encoder",
]
