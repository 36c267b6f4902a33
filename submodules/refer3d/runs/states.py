"""Saved states: tensors and plain values, read without running code and checked before use.

A schema declares the content of a state: a dict with the schema of each key, a list with that of
all items, a type of plain values, the only value that is allowed, or one of the classes below. The
key ``...`` allows other keys::

    {"steps": Number(int, 0), "means": Array(("N", 3)), "names": [str], "scores": Maybe(Finite)}
"""

from __future__ import annotations

import errno
import math
import os
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from refer3d.runs.errors import InputError, reason
from refer3d.runs.files import atomic_write
from refer3d.runs.records import short

ORDERED = {
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
}
"""Dtypes whose values have bounds."""
PLAIN = (Tensor, torch.nn.Parameter)
"""Types of tensors that have a storage; a subclass may have none."""
LITTLE = 1 << 24
"""Free bytes below which a disk counts as full."""
AGAIN = "delete it and start again"
_NUMPY = np.float64(0).__reduce__()[0]
NUMBERS: list[Any] = [
    (_NUMPY, "numpy.core.multiarray.scalar"),
    (_NUMPY, "numpy._core.multiarray.scalar"),
    *(np.dtype, np.dtypes.Float32DType, np.dtypes.Float64DType),
]
"""NumPy's numbers, such as the extent in Inria's checkpoints."""


@dataclass(frozen=True)
class Array:
    """A tensor of finite values."""

    shape: tuple[int | str | None, ...]
    """A letter stands for the same size in the whole state, None for any."""
    dtype: torch.dtype = torch.float32
    low: float = -math.inf
    high: float = math.inf

    @classmethod
    def like(cls, tensor: Tensor, low: float = -math.inf) -> Array:
        """Declares a tensor of the same shape and dtype."""
        return cls(tuple(tensor.shape), tensor.dtype, low)


@dataclass(frozen=True)
class Number:
    """A finite number; an integer is a float, too."""

    kind: type[int] | type[float]
    low: float = -(2**53)
    high: float = 2**53


@dataclass(frozen=True)
class Maybe:
    """A value that may be None or absent."""

    schema: Any


class Finite:
    """Tensors and plain values of any structure, all finite."""


def like(state: Mapping[str, Tensor]) -> dict[str, Array]:
    """Declares tensors of the same names, shapes and dtypes."""
    return {name: Array.like(tensor) for name, tensor in state.items()}


def adam_schema(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Declares an optimizer's moments: fused Adam writes past the end of smaller ones.

    Learning rates and the like are no part of it, since they follow from the options.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    moments = {
        index: Maybe(
            {
                "step": Array((), low=0, high=2**24),
                "exp_avg": Array.like(parameter),
                "exp_avg_sq": Array.like(parameter, low=0),
            }
        )
        for index, parameter in enumerate(parameters)
    }
    return {"state": moments}


def load_adam(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Sets the moments that :func:`adam_schema` has checked."""
    moments = {index: own for index, own in state["state"].items() if own is not None}
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": moments, "param_groups": groups})


def save_state(path: Path | str, value: Any) -> None:
    """Writes tensors and plain values; the file appears whole or not at all.

    A state for :func:`load_state` is a dict with its ``format`` number. A tensor that is a view is
    written as a copy, so that the file holds all its numbers and no others.

    Raises:
        OSError: Writing fails; the error names the file.
    """
    value = _without_views(value, {})
    with atomic_write(path) as file:
        try:
            torch.save(value, file)
        except RuntimeError as error:  # torch's zip writer after a failed write
            if shutil.disk_usage(Path(path).parent).free < LITTLE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise OSError(errno.EIO, f"cannot be written ({str(error).splitlines()[0]})") from error


def _without_views(value: Any, owners: dict[int, Any]) -> Any:
    """Copies tensors that do not fill their storage, or share it with one of another shape.

    Args:
        value: Tensors and plain values; dicts, lists and tuples of them.
        owners: Receives the first tensor of each storage, by the storage's address.
    """
    if isinstance(value, Mapping):
        return {name: _without_views(item, owners) for name, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_without_views(item, owners) for item in value)
    if type(value) not in PLAIN or value.layout != torch.strided or value.is_nested:
        return value
    storage = value.untyped_storage()
    place = _place(value)
    is_whole = storage.nbytes() == value.numel() * value.element_size()
    if is_whole and owners.setdefault(storage.data_ptr(), place) == place:
        return value
    return value.detach().clone(memory_format=torch.contiguous_format)


def _place(tensor: Tensor) -> tuple[Any, ...]:
    """Equal for two tensors with the same numbers in memory."""
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


def load_state(
    path: Path | str,
    format: int,  # noqa: A002
    schema: Mapping[str, Any],
    remedy: str = AGAIN,
) -> dict[str, Any]:
    """Reads a state of :func:`save_state`; no code in the file is run.

    Args:
        path: The file.
        format: Its format number.
        schema: The rest of its content; other keys of the file are left out.
        remedy: Advice for a file that is not such a state.

    Raises:
        InputError: The file is absent, cut, of another format, or does not match the schema.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; start the run without --resume")
    state = read_tensors(path, remedy)
    actual = state.get("format") if isinstance(state, dict) else None
    if type(actual) is not int or actual != format:
        raise InputError(f"{path}: has format {short(actual)}, this code reads {format}; {remedy}")
    return check(state, schema, str(path), remedy)


def check(value: Any, schema: Any, where: str, remedy: str) -> Any:
    """Returns the declared part of a value.

    Args:
        value: Tensors and plain values of :func:`read_tensors`.
        schema: See the module.
        where: Name of the value in errors, such as its file.
        remedy: Advice in errors.

    Raises:
        InputError: Something is missing, of another kind, shape or dtype, not finite or out of
            bounds.
    """
    return _Checker({}, remedy).check(value, schema, where)


@dataclass(frozen=True)
class _Checker:
    sizes: dict[str, int]
    """Sizes that letters stand for."""
    remedy: str

    def check(self, value: Any, schema: Any, where: str) -> Any:
        """Returns the value as its schema has it; ``where`` names it in errors."""
        if isinstance(schema, Maybe):
            return None if value is None else self.check(value, schema.schema, where)
        if isinstance(schema, Array):
            return self._tensor(value, schema, where)
        if isinstance(schema, Number):
            kinds = (int, float) if schema.kind is float else int
            kind = "a number" if schema.kind is float else "an integer"
            bounds = f"{kind} from {schema.low:g} to {schema.high:g}"
            is_kind = isinstance(value, kinds) and not isinstance(value, bool)
            self._expect(is_kind and schema.low <= value <= schema.high, where, bounds, value)
            return schema.kind(value)
        if isinstance(schema, list):
            self._expect(isinstance(value, list | tuple), where, "a list", value)
            return [self.check(v, schema[0], f"{where}[{i}]") for i, v in enumerate(value)]
        if isinstance(schema, dict):
            self._expect(isinstance(value, dict), where, "names with values", value)
            if ... in schema:
                schema = dict.fromkeys(value, schema[...]) | schema
                del schema[...]
            for name, inner in schema.items():
                is_there = name in value or isinstance(inner, Maybe)
                self._expect(is_there, where, repr(name), list(value))
            return {n: self.check(value.get(n), s, f"{where}: {n}") for n, s in schema.items()}
        if schema is Finite:
            return self._finite(value, where)
        if isinstance(schema, type):
            self._expect(type(value) is schema, where, schema.__name__, value)
        else:
            is_same = type(value) is type(schema) and value == schema
            self._expect(is_same, where, repr(schema), value)
        return value

    def _finite(self, value: Any, where: str) -> Any:
        kinds = {float: Number(float), dict: {...: Finite}, list: [Finite], tuple: [Finite]}
        if isinstance(value, Tensor):
            return self._tensor(value, Array.like(value), where)
        if type(value) in kinds:
            return self.check(value, kinds[type(value)], where)
        is_plain = value is None or isinstance(value, int | str)
        self._expect(is_plain, where, "a tensor or a plain value", value)
        return value

    def _tensor(self, value: Any, schema: Array, where: str) -> Tensor:
        self._expect(isinstance(value, Tensor), where, "a tensor", value)
        for letter, size in zip(schema.shape, value.shape, strict=False):
            if isinstance(letter, str):
                self.sizes.setdefault(letter, size)
        expected = [self.sizes.get(s) if isinstance(s, str) else s for s in schema.shape]
        is_alike = len(expected) == value.ndim and all(
            want in (None, size) for want, size in zip(expected, value.shape, strict=True)
        )
        self._expect(is_alike, where, f"shape {expected}", list(value.shape))
        self._expect(value.dtype == schema.dtype, where, str(schema.dtype), value.dtype)
        if value.numel() and value.dtype != torch.bool:
            self._expect(value.dtype in ORDERED, where, "real numbers", value.dtype)
            low, high = (float(bound) for bound in value.aminmax())  # NaN if one is
            is_inside = -math.inf < low and high < math.inf
            is_inside = is_inside and schema.low <= low and high <= schema.high
            bounds = f"finite values from {schema.low:g} to {schema.high:g}"
            self._expect(is_inside, where, bounds, [low, high])
        return value

    def _expect(self, is_right: bool, where: str, expected: str, got: Any) -> None:
        if not is_right:
            raise InputError(f"{where}: expected {expected}, got {short(got)}; {self.remedy}")


def read_tensors(path: Path, advice: str, kind: str = "") -> Any:
    """Loads tensors and plain values from a file of ``torch.save``; no code in it is run.

    All tensors are dense, on the CPU, and together no larger than the file: one that is a view of
    a single number may claim any size.

    Args:
        path: An existing file.
        advice: Remedy for an unreadable file.
        kind: Kind of the file in the error: " as a checkpoint".

    Raises:
        InputError: The file is cut, or holds other objects.
    """
    try:
        is_zip = zipfile.is_zipfile(path)
        if is_zip:
            with zipfile.ZipFile(path) as archive:
                if any(record.compress_type for record in archive.infolist()):
                    raise ValueError("it is compressed, which torch.save never does")
        with torch.serialization.safe_globals(NUMBERS):
            # Mapped, a tensor cannot claim more bytes than the file has.
            value = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
        return _Copier(path.stat().st_size).copy(value)
    except Exception as error:  # the unpickler fails in any way on other bytes
        raise InputError(f"{path}: cannot be read{kind} ({first_line(error)}); {advice}") from error


class _Copier:
    """Copies tensors out of a mapped file, after a check of their kind and size."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.copies: dict[Any, Any] = {}

    def copy(self, value: Any) -> Any:
        """Copies tensors, lists, tuples and dicts; one that stands twice stays one."""
        if isinstance(value, Tensor):
            return self._tensor(value)
        if not isinstance(value, dict | list | tuple):
            return value
        key = id(value)
        if key not in self.copies:
            self.copies[key] = None  # inside itself
            if isinstance(value, dict):
                copy = {name: self.copy(item) for name, item in value.items()}
            else:
                items = [self.copy(item) for item in value]
                copy = items if isinstance(value, list) else tuple(items)
            self.copies[key] = copy
        return self.copies[key]

    def _tensor(self, tensor: Tensor) -> Tensor:
        is_plain = type(tensor) in PLAIN and tensor.layout == torch.strided
        if not is_plain or tensor.device.type != "cpu" or tensor.is_quantized or tensor.is_nested:
            raise ValueError(f"it holds a {tensor.layout} tensor on {tensor.device}")
        place = _place(tensor)
        if place not in self.copies:
            self.budget -= tensor.numel() * tensor.element_size()
            if self.budget < 0:
                raise ValueError("its tensors are larger than the file")
            self.copies[place] = tensor.detach().clone(memory_format=torch.contiguous_format)
        return self.copies[place]


def first_line(error: Exception) -> str:
    """Returns an error's first line, without torch's advice to run the code in the file."""
    text = str(error)
    if "GLOBAL" in text:
        return "it holds Python objects, which could run code and are not loaded"
    return "it holds no tensors" if "weights_only" in text else reason(error)
