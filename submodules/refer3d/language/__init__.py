"""Plain questions about a scene, parsed to typed trees."""

from refer3d.language.description import Description, Grade, Rank, Relation
from refer3d.language.lexicon import COLORS
from refer3d.language.parser import parse
from refer3d.language.phrases import find_phrases
from refer3d.language.tokens import correct

__all__ = ["COLORS", "Description", "Grade", "Rank", "Relation", "correct", "find_phrases", "parse"]
