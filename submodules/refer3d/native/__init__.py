"""Shared by both packages' ops: operators, the loader of compiled code, and argument checks."""

from refer3d.native.checks import (
    as_array,
    check_constant,
    check_real,
    check_same,
    check_shape,
    in_precision_of,
    outside_autocast,
)
from refer3d.native.loader import backend, is_compiled, load, num_threads, outside_graphs
from refer3d.native.operators import apply, fill, operator

__all__ = [
    "apply",
    "as_array",
    "backend",
    "check_constant",
    "check_real",
    "check_same",
    "check_shape",
    "fill",
    "in_precision_of",
    "is_compiled",
    "load",
    "num_threads",
    "operator",
    "outside_autocast",
    "outside_graphs",
]
