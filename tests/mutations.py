"""Mutations of saved states, of the kinds that crash a reader that trusts them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from refer3d.runs.errors import InputError

EXAMPLES = int(os.environ.get("REFER3D_MUTATIONS", "25"))
"""Mutations of each state; the benchmarks name a command that tries many."""
Place = tuple[Any, ...]

TENSORS: dict[str, Callable[[Tensor], Any]] = {
    "NaN": lambda x: torch.full(x.shape, math.nan),
    "infinite": lambda x: torch.full(x.shape, math.inf),
    "negative": lambda x: torch.full(x.shape, -1, dtype=x.dtype if x.dtype.is_signed else None),
    "huge": lambda x: torch.full(x.shape, 1e38),
    "fewer rows": lambda x: x[:1] if x.ndim else x.new_zeros(0),
    "flat": lambda x: x.flatten(),
    "no values": lambda x: x.new_zeros(0),
    "wider": lambda x: x[..., None],
    "double": lambda x: x.double(),
    "integers": lambda x: x.long(),
    "half": lambda x: x.half(),
    "complex": lambda x: x.to(torch.complex64),
    "sparse": lambda x: x.float().to_sparse(),
    "meta": lambda x: x.to("meta"),
    "one number": lambda x: x.new_zeros(1).expand(10**11),
    "same shape of one number": lambda x: x.new_zeros(()).expand(x.shape),
}
VALUES: tuple[Any, ...] = (
    *(None, -1, 10**9, 10**5000, math.nan, -math.inf, 1e300, True, "text", "\ud800", b"x"),
    *([], {}, (), [[]] * 3, {0: 0}, torch.zeros(0), torch.zeros(3), torch.zeros(1).expand(10**11)),
)


def places(state: Any, here: Place = ()) -> Iterator[Place]:
    """Every place of a state: of tensors and plain values, and of dicts and lists."""
    if here:
        yield here
    items: Any = ()
    if isinstance(state, dict):
        items = state.items()
    elif isinstance(state, list | tuple):
        items = enumerate(state)
    for name, item in items:
        yield from places(item, (*here, name))


def mutations(state: dict[str, Any]) -> st.SearchStrategy[tuple[Place, str, Any]]:
    """Draws a place of a state, the kind of mutation and a parameter of it."""
    plain = st.integers(0, len(VALUES) - 1)
    kinds = [st.tuples(st.just("value"), plain), st.just(("drop", 0))]
    kinds.append(st.tuples(st.just("tensor"), st.sampled_from([*TENSORS])))
    return st.tuples(st.sampled_from([*places(state)]), st.one_of(kinds)).map(
        lambda drawn: (drawn[0], *drawn[1])
    )


def mutated(state: Any, place: Place, kind: str, parameter: Any) -> Any:
    """Returns a copy of a state that is mutated at a place."""
    if not place:
        if kind == "tensor" and isinstance(state, Tensor):
            return TENSORS[parameter](state)
        return VALUES[parameter] if kind == "value" else None
    name, *rest = place
    copy = [*state] if isinstance(state, tuple) else state.copy()
    if kind == "drop" and not rest:
        del copy[name]
    else:
        copy[name] = mutated(state[name], tuple(rest), kind, parameter)
    return tuple(copy) if isinstance(state, tuple) else copy


def edits(size: int) -> st.SearchStrategy[list[tuple[int, int]]]:
    """Draws changes of a file: bytes at places, or, by -1, a cut."""
    return st.lists(st.tuples(st.integers(0, size - 1), st.integers(-1, 255)), min_size=1)


def edited(content: bytes, changes: list[tuple[int, int]]) -> bytes:
    """Returns a file's content with changes of :func:`edits`."""
    result = bytearray(content)
    for place, value in changes:
        if value < 0:
            del result[place:]
        elif place < len(result):
            result[place] = value
    return bytes(result)


def is_refused(read: Callable[[Path], object], path: Path) -> bool:
    """Whether a file is refused with an error that names it; other errors are faults."""
    refusal = None
    try:
        read(path)
    except InputError as error:
        refusal = str(error)
    assert refusal is None or (path.name in refusal and len(refusal) < 600), refusal
    return refusal is not None
