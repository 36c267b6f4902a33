"""Configs: defaults, then a YAML file that holds the differences, then the command line.

Nothing is guessed: an unknown key, a repeated key and a value of another type are errors that name
the file and the nearest key.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import difflib
import functools
import itertools
import logging
import math
import re
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro
import yaml

from refer3d.runs.errors import InputError
from refer3d.runs.files import atomic_write
from refer3d.runs.options import Option, fields, options, to_mapping, validate
from refer3d.runs.records import short

log = logging.getLogger(__name__)

Schema = TypeVar("Schema")

MODEL_KEY = "model"
"""Key that names a config file's model; the default is the name of the file's folder."""
RENAMED = "RENAMED"
"""Attribute of a schema with the old names of its options. ``"old": "new"`` keeps the value. A
switch that became a word of a list is ``"old": "list word"``: off adds the word."""


class _StrictLoader(yaml.SafeLoader):
    """YAML without repeated keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


def choose_model(argv: Sequence[str], models: Sequence[str], model_of: Mapping[str, str]) -> str:
    """Chooses the model that a command line means.

    Args:
        argv: The options.
        models: Names of the models.
        model_of: Options that belong to one model: ``{"-m": "refersplat"}``.

    Raises:
        InputError: Nothing names a model.
    """
    path, _ = take_option(argv, "--config")
    if path is not None:
        name = _read_yaml(Path(path)).get(MODEL_KEY, Path(path).absolute().parent.name)
        if name in models:
            return name
    for word in argv:
        for option, model in model_of.items():
            if word == option or word.startswith(f"{option}="):
                return model
    if path is not None:
        raise InputError(
            f"{path}: lies in no model's folder; expected configs/<model>/ or a key "
            f"'{MODEL_KEY}: <model>' with one of: {', '.join(models)}"
        )
    if {"-h", "--help"} & set(argv):
        return models[0]
    short = " or ".join(option for option in model_of if not option.startswith("--"))
    raise InputError(f"expected {short}, or --config FILE, got neither; --help shows all options")


def parse(
    schema: type[Schema],
    argv: Sequence[str],
    *,
    program: str,
    description: str,
    base: Schema | None = None,
    shows: Callable[[Option], bool] = lambda option: True,
) -> Schema:
    """Reads the options of a run: defaults, then the file of ``--config``, then the command line.

    Args:
        schema: See :mod:`refer3d.runs.options`.
        argv: The command line's options.
        program: Name of the program in its help.
        description: Text of the help.
        base: Config to start from without ``--config``, instead of the defaults.
        shows: Whether the help lists an option.

    Raises:
        InputError: The file is absent or wrong, or a value is out of bounds. An unknown option ends
            the program.
    """
    path, rest = take_option(argv, "--config")
    config = (base or schema()) if path is None else load_yaml(path, schema)
    config, rest = _take_old(config, rest)
    if not {"-h", "--help"}.isdisjoint(rest):
        names = {option.name for option in options(schema) if shows(option)}
        schema, rest = _help_schema(config, names), ["--help"]
        config = schema()
    config = tyro.cli(
        schema,
        args=rest,
        default=config,
        prog=program,
        description=f"{description}\n\n--config FILE.yaml sets options, too; those given here win.",
        use_underscores=True,
    )
    validate(config)
    return config


def _help_schema(config: Any, names: Collection[str], prefix: str = "") -> type:
    """Makes the schema of a help that lists some of the options, with the values of ``config``."""
    schema = type(config)
    hints = typing.get_type_hints(schema, include_extras=True)
    shown: list[tuple[str, Any, Any]] = []
    for name, option in fields(schema).items():
        value = getattr(config, name)
        if option.section is not None:
            section = _help_schema(value, names, f"{prefix}{name}.")
            if dataclasses.fields(section):
                shown.append((name, section, dataclasses.field(default_factory=section)))
        elif f"{prefix}{name}" in names:
            text = tyro.conf.arg(
                help=option.meaning.replace("``", ""),
                help_behavior_hint=lambda value: f"(default: {value})" if value.strip("'") else "",
            )
            shown.append((name, Annotated[hints[name], text], value))
    return dataclasses.make_dataclass(schema.__name__, shown, namespace={"__doc__": schema.__doc__})


def load_yaml(path: Path | str, schema: type[Schema], warn: bool = True) -> Schema:
    """Reads a YAML file over the defaults of ``schema``.

    Args:
        path: The file.
        schema: See :mod:`refer3d.runs.options`.
        warn: Whether to warn of old names of options.

    Raises:
        InputError: The file is absent, is not YAML, is of another model, or has a wrong key or
            value.
    """
    values = dict(_read_yaml(Path(path)))
    own = _model(schema)
    model = values.pop(MODEL_KEY, own)
    if model != own:
        raise InputError(
            f"{path}: expected a file of {own}, got one of {model}; use {model}'s programs, or "
            "name another file"
        )
    config, old = _from_mapping(schema, values, str(path))
    validate(config, f"{path}: ")
    if warn:
        _warn_of(schema, old, str(path))
    return config


def save_yaml(config: Any, path: Path | str) -> None:
    """Writes the model's name and every option with its value.

    ``--config`` takes such a file from any folder.
    """
    values = {MODEL_KEY: _model(type(config))}
    with atomic_write(path) as file:
        text = yaml.safe_dump(values | to_mapping(config), sort_keys=False, allow_unicode=True)
        file.write(text.encode())


def from_mapping(schema: type[Schema], values: Mapping[str, Any], where: str) -> Schema:
    """Builds a config from plain values over the defaults; old names of options are read, too.

    Raises:
        InputError: A key or a value is wrong; the error begins with ``where``.
    """
    config, _ = _from_mapping(schema, values, where)
    validate(config, f"{where}: ")
    return config


def upgrade(
    schema: type, values: Mapping[str, Any], where: str
) -> tuple[dict[str, Any], list[str]]:
    """Replaces old names of options in plain values.

    Returns:
        values: A copy with the new names.
        old: The old names that were there.

    Raises:
        InputError: An option has both names, or an old switch is neither on nor off; the error
            begins with ``where``.
    """
    result, old = copy.deepcopy(dict(values)), []
    for name, new in getattr(schema, RENAMED, {}).items():
        section, leaf = _section(result, name)
        if leaf not in section:
            continue
        old.append(name)
        value = section.pop(leaf)
        option, *switch = new.split()
        target, leaf = _section(result, option)
        if switch:
            words = target.get(leaf, [])
            if not isinstance(value, bool):
                raise InputError(f"{where}: {name}: expected true or false, got {short(value)}")
            if not isinstance(words, list):
                continue  # the builder reports it
            if value:
                value = [word for word in words if word not in switch]
            else:
                value = words + [word for word in switch if word not in words]
        elif leaf in target:
            raise InputError(f"{where}: {name} is the old name of {option}; delete one of the two")
        target[leaf] = value
    return result, old


def take_option(argv: Sequence[str], *names: str) -> tuple[str | None, list[str]]:
    """Splits a command line into the value of one option and the rest."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(*names, dest="value")
    parsed, rest = parser.parse_known_args(list(argv))
    return parsed.value, rest


def require_values(argv: Sequence[str], *names: str) -> None:
    """Refuses options of a list without a value, which would otherwise count as not given.

    Raises:
        InputError: One of the options stands there without a value.
    """
    for word, after in itertools.zip_longest(argv, argv[1:], fillvalue="-"):
        if word in names and after.startswith("-"):
            raise InputError(f"{word}: expected a value, got none; write it behind, in quotes")


def model_of(path: Path) -> str | None:
    """Name of the model in a YAML file of options; None if it is absent, broken or names none."""
    with suppress(InputError):
        name = _read_yaml(path).get(MODEL_KEY)
        return name if isinstance(name, str) else None
    return None


def _model(schema: type) -> str:
    """Name of the package whose options the schema holds."""
    return schema.__module__.partition(".")[0]


def _section(values: dict[str, Any], name: str) -> tuple[dict[str, Any], str]:
    """The mapping that an option lies in, made if absent, and its key there."""
    *sections, leaf = name.split(".")
    for section in sections:
        inner = values[section] = {} if values.get(section) is None else values[section]
        if not isinstance(inner, dict):
            return {}, leaf  # the builder reports it
        values = inner
    return values, leaf


def _take_old(config: Schema, argv: Sequence[str]) -> tuple[Schema, list[str]]:
    """Renames options in a command line; switches that became words go into its base config."""
    renamed = getattr(type(config), RENAMED, {})
    values, rest, old = to_mapping(config), [], []
    names = [word.partition("=")[0].replace("-", "_").removeprefix("__") for word in argv]
    for word, name in zip(argv, names, strict=True):
        option, equals, value = word.partition("=")
        on = name if name in renamed else re.sub(r"(^|\.)no_", r"\1", name)
        new, _, switch = renamed.get(on, "").partition(" ")
        if not option.startswith("--") or not new or (switch and equals):
            rest.append(word)
            continue
        old.append(on)
        if switch:
            if new in names:
                raise InputError(f"--{on}: expected a word of --{new}, got both; add it there")
            section, leaf = _section(values, on)
            section[leaf] = name == on
        else:
            section, dot, leaf = new.rpartition(".")
            rest.append(f"--{section}{dot}{'no_' * (name != on)}{leaf}{equals}{value}")
    _warn_of(type(config), old, "command line")
    return (_from_mapping(type(config), values, "command line")[0] if old else config), rest


def _warn_of(schema: type, old: Sequence[str], where: str) -> None:
    """Logs one warning for all old names."""
    names = ", ".join(f"{name} (now {getattr(schema, RENAMED)[name]})" for name in old)
    if names:
        _warn(f"{where}: deprecated options, to be removed in the next release: {names}")


@functools.cache  # programs parse their command line more than once
def _warn(message: str) -> None:
    log.warning(message)


def _read_yaml(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        near = difflib.get_close_matches(
            path.name, [other.name for other in path.parent.glob("*.yaml")], n=1
        )
        hint = f"did you mean {path.with_name(near[0])}?" if near else "correct the path"
        raise InputError(f"{path}: no such config file; {hint}")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text; save it as UTF-8") from error
    except (
        yaml.YAMLError,
        ValueError,
        RecursionError,
        MemoryError,
    ) as error:  # 2021-13-45, 0b_, 1000 brackets
        reason = " ".join(str(error).replace(f'in "{path}",', "at").split())
        raise InputError(f"{path}: is not YAML ({reason}); correct it") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(
            f"{path}: expected 'section:' and below it 'key: value', got {short(values)}"
        )
    return values


def _from_mapping(
    schema: type[Schema], values: Mapping[str, Any], where: str
) -> tuple[Schema, list[str]]:
    values, old = upgrade(schema, values, where)
    return _build(schema, values, where, [option.name for option in options(schema)]), old


def _build(schema: type[Schema], values: Any, where: str, names: Sequence[str]) -> Schema:
    if not isinstance(values, dict):
        raise InputError(f"{where}: expected 'key: value' below it, got {short(values)}")
    here = fields(schema)
    result = {}
    for name, value in values.items():
        if name not in here:
            raise InputError(f"{where}: unknown key {name!r}; {_nearest(str(name), here, names)}")
        section, place = here[name].section, f"{where}: {name}"
        if section is None:
            result[name] = _convert(here[name].kind, value, place)
        else:
            result[name] = _build(section, {} if value is None else value, place, names)
    return schema(**result)


def _nearest(name: str, here: Mapping[str, Any], names: Sequence[str]) -> str:
    """Proposes a key of this section, else one of that name in another."""
    if near := difflib.get_close_matches(name, here, n=1):
        return f"did you mean {near[0]!r}?"
    leaves = {option.rpartition(".")[2]: option for option in names}
    if near := difflib.get_close_matches(name, leaves, n=1):
        section, _, key = leaves[near[0]].rpartition(".")
        return f"did you mean {key!r} of section {section!r}?" if section else f"see {key!r}"
    return f"known keys: {', '.join(here)}"


def _convert(kind: Any, value: Any, where: str) -> Any:
    """Converts a YAML value to an option's type; ``1e-3``, text to YAML, is a number."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal and value in arguments:
        return value
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_convert(arguments[0], item, where) for item in value)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (kind,) = (argument for argument in arguments if argument is not type(None))
        return _convert(kind, value, where)
    if kind is float and not isinstance(value, bool):
        with suppress(TypeError, ValueError, OverflowError):
            number = float(value)
            if math.isfinite(number):
                return number
    if kind is str and isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # a frame number, a folder named 2
    if kind in (int, str, bool) and type(value) is kind:
        return value
    raise InputError(f"{where}: expected {_describe(kind)}, got {short(value)}")


def _describe(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin is tuple:
        return f"a list, each {_describe(arguments[0])}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_describe(argument) for argument in arguments)
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return names.get(kind, "nothing" if kind is type(None) else str(kind))
