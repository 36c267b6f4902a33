"""Word and sentence features of a frozen language model."""

from refer3d.text_encoder.cache import CachedTextEncoder
from refer3d.text_encoder.features import TextEncoder, TextFeatures, check_text, is_same_text
from refer3d.text_encoder.hashed import HashTextEncoder
from refer3d.text_encoder.pretrained import PretrainedTextEncoder, make_encoder

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
