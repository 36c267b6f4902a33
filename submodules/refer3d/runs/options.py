"""Options: the fields of frozen dataclasses, with bounds and meaning beside each field.

A schema is a frozen dataclass of fields and of sections, which are frozen dataclasses, too::

    lr: Annotated[float, Bounds(0), Changeable("eval")] = 1e-3
    \"\"\"Learning rate.\"\"\"

The docstring below a field is its ``--help``. A section may have a method ``check`` for rules
between its fields; it raises ``ValueError("field: expected …, got …; remedy")``.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import math
import typing
from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import Any, NamedTuple

from refer3d.runs.errors import InputError
from refer3d.runs.records import short


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Least and greatest value of a number, or of each number of a tuple; both are finite."""

    low: float
    high: float = math.inf
    also: float | None = None
    """One value outside that has a meaning of its own, such as -1."""

    def __contains__(self, value: float) -> bool:
        return value == self.also or (self.low <= value <= self.high and not math.isinf(value))

    def __str__(self) -> str:
        usual = f"at least {self.low}" if self.high == math.inf else f"{self.low} to {self.high}"
        return usual if self.also is None else f"{usual}, or {self.also}"


class Changeable:
    """Programs in which an option may differ from the value that its run was trained with.

    On a section, it applies to the fields that have none of their own. ``train`` stands for a run
    that is resumed.
    """

    def __init__(self, *programs: str) -> None:
        self.programs = programs


class Option(NamedTuple):
    """One field of a schema."""

    name: str
    """With its sections: ``train.feature_lr``."""
    kind: Any
    """Type of the values."""
    default: Any
    meaning: str
    aliases: tuple[str, ...]
    bounds: Bounds | None
    changeable_in: tuple[str, ...] | None
    """Programs in which it may differ from the run's value; None leaves it to the section."""

    def can_change_in(self, program: str) -> bool:
        """Whether the option may differ from the run's value there."""
        return program in (self.changeable_in or ())

    @property
    def section(self) -> type | None:
        """The type, if it is a dataclass."""
        is_section = isinstance(self.kind, type) and dataclasses.is_dataclass(self.kind)
        return self.kind if is_section else None

    @property
    def choices(self) -> tuple[str, ...]:
        """Allowed words, of each item of a tuple; empty if there is no such list."""
        kind = typing.get_args(self.kind)[0] if typing.get_origin(self.kind) is tuple else self.kind
        return typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()


@functools.cache
def fields(schema: type) -> Mapping[str, Option]:
    """Lists the fields of one dataclass, sections unopened."""
    hints, meanings = typing.get_type_hints(schema, include_extras=True), _docstrings(schema)
    result = {}
    for field in dataclasses.fields(schema):
        kind, extras = hints[field.name], ()
        if typing.get_origin(kind) is typing.Annotated:
            kind, *extras = typing.get_args(kind)
        result[field.name] = Option(
            *(field.name, kind, field.default, meanings.get(field.name, "")),
            aliases=tuple(a for extra in extras for a in getattr(extra, "aliases", None) or ()),
            bounds=next((extra for extra in extras if isinstance(extra, Bounds)), None),
            changeable_in=next((e.programs for e in extras if isinstance(e, Changeable)), None),
        )
    return result


def options(schema: type, prefix: str = "", programs: tuple[str, ...] = ()) -> Iterator[Option]:
    """Lists every option of a schema, those of sections included, in order."""
    for name, field in fields(schema).items():
        own = programs if field.changeable_in is None else field.changeable_in
        if field.section is not None:
            yield from options(field.section, f"{prefix}{name}.", own)
        else:
            yield field._replace(name=f"{prefix}{name}", changeable_in=own)


def validate(config: Any, where: str = "--") -> None:
    """Checks numbers against their bounds, then the rules between fields.

    Args:
        config: An instance of a schema.
        where: Prefix of the option's name in errors, such as ``config.yaml: ``.

    Raises:
        InputError: A value is out of bounds or contradicts another.
    """
    for option in options(type(config)):
        value = attrgetter(option.name)(config)
        for number in value if isinstance(value, tuple) else (value,):
            if option.bounds is not None and number is not None and number not in option.bounds:
                got = short(number)
                raise InputError(
                    f"{where}{option.name}: expected {option.bounds}, got {got}; change it"
                )
    _check_rules(config, where)


def _check_rules(config: Any, where: str) -> None:
    if hasattr(config, "check"):
        try:
            config.check()
        except ValueError as error:
            raise InputError(f"{where}{error}") from error
    for name, field in fields(type(config)).items():
        if field.section is not None:
            _check_rules(getattr(config, name), f"{where}{name}.")


def to_mapping(config: Any) -> dict[str, Any]:
    """Converts a config to plain values; tuples become lists."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(item) for name, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, tuple) else value

    return plain(dataclasses.asdict(config))


def differences(one: Any, other: Any) -> list[str]:
    """Names the options in which two configs of one schema differ."""
    names = [option.name for option in options(type(one))]
    return [name for name in names if attrgetter(name)(one) != attrgetter(name)(other)]


def override(config: Any, values: Mapping[str, Any]) -> Any:
    """Returns a config with other values of some options, named with their sections."""
    for name, value in values.items():
        section, _, rest = name.partition(".")
        if rest:
            value = override(getattr(config, section), {rest: value})
        config = dataclasses.replace(config, **{section: value})
    return config


def _docstrings(schema: type) -> Mapping[str, str]:
    """The docstring below each field in the source, on one line."""
    (definition,) = ast.parse(inspect.cleandoc("\n" + inspect.getsource(schema))).body
    assert isinstance(definition, ast.ClassDef)
    meanings = {}
    for field, text in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            assert isinstance(field.target, ast.Name)
            meanings[field.target.id] = " ".join(ast.literal_eval(text.value).split())
    return meanings
