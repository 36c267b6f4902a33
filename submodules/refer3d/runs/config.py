"""Options: a frozen dataclass is the schema, a YAML file holds what differs, the command line wins.

Nothing is guessed: an unknown key, a key that stands twice and a value of another type are errors
that name the file and the nearest key that there is.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import difflib
import inspect
import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import tyro
import yaml

from refer3d.runs.errors import InputError
from refer3d.runs.files import atomic_write

Schema = TypeVar("Schema")

MODEL_KEY = "model"
"""Names a config file's model where its folder does not."""


class Option(NamedTuple):
    """One field of a schema."""

    name: str
    """With its sections: ``train.feature_lr``."""
    aliases: tuple[str, ...]
    choices: tuple[str, ...]
    """What it may be; empty where that is not a list of words."""
    default: Any
    meaning: str


class _StrictLoader(yaml.SafeLoader):
    """YAML in which a key stands once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


def choose_model(argv: Sequence[str], models: Sequence[str], model_of: Mapping[str, str]) -> str:
    """Which model a command line means.

    Args:
        argv: The options.
        models: Those that there are.
        model_of: Options that belong to one model and so name it: ``{"-m": "refersplat"}``.

    Raises:
        InputError: Nothing names a model that there is.
    """
    path = _preview(argv).config
    if path is not None:
        named = _read_yaml(Path(path)).get(MODEL_KEY, Path(path).absolute().parent.name)
        if named in models:
            return named
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
    wanted = " or ".join(option for option in model_of if not option.startswith("--"))
    raise InputError(f"expected {wanted}, or --config FILE, got neither; --help shows all options")


def parse(
    schema: type[Schema],
    argv: Sequence[str],
    *,
    program: str,
    description: str,
    resolved: str | None = None,
    may_be_absent: bool = False,
    bare: Mapping[str, str] | None = None,
) -> Schema:
    """The options of a run: the defaults, then the file, then the command line.

    Args:
        schema: A frozen dataclass of fields and of sections, which are frozen dataclasses.
        argv: The command line's options. ``--config`` names the file.
        program: What the help calls the program.
        description: What the help says about it.
        resolved: Name of the file in the folder of ``-m`` that is read where ``--config`` is not
            given, for programs that go on with what is there.
        may_be_absent: Whether there need not be such a file yet.
        bare: Options that may stand without a value, and what they mean then.

    Raises:
        InputError: The file is absent or wrong. A wrong option ends the program.
    """
    known = _preview(_filled(argv, bare or {}))
    base = schema()
    if known.config is not None:
        base = load_yaml(Path(known.config), schema)
    elif resolved is not None and known.folder is not None:
        path = Path(known.folder, resolved)
        if path.is_file():
            base = load_yaml(path, schema)
        elif not may_be_absent:
            raise InputError(
                f"{path}: no such file, so {known.folder} is no folder that train.py has written; "
                "give -m the one that it has"
            )
    return tyro.cli(
        schema,
        args=known.rest,
        default=base,
        prog=program,
        description=f"{description}\n\n--config FILE.yaml sets options, too; those given here win.",
        use_underscores=True,
    )


def load_yaml(path: Path | str, schema: type[Schema]) -> Schema:
    """The defaults of ``schema`` with what a YAML file changes.

    Raises:
        InputError: The file is absent, is no YAML, or says something that the schema has not.
    """
    values = dict(_read_yaml(Path(path)))
    values.pop(MODEL_KEY, None)
    return from_mapping(schema, values, str(path))


def save_yaml(config: Any, path: Path | str, model: str = "") -> None:
    """Writes every option with its value, and whose they are if ``model`` is given.

    Such a file can be given by ``--config`` from any folder.
    """
    values = {MODEL_KEY: model} if model else {}
    with atomic_write(path) as file:
        text = yaml.safe_dump(values | to_mapping(config), sort_keys=False, allow_unicode=True)
        file.write(text.encode())


def to_mapping(config: Any) -> dict[str, Any]:
    """A config as plain values; tuples become lists."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(item) for name, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, tuple) else value

    return plain(dataclasses.asdict(config))


def from_mapping(schema: type[Schema], values: Mapping[str, Any], where: str) -> Schema:
    """The defaults of ``schema`` with ``values`` in their place; ``where`` is said in errors."""
    return _build(schema, values, where, [option.name for option in options(schema)])


def options(schema: type, prefix: str = "") -> Iterator[Option]:
    """Every field of a schema, sections opened, in order."""
    meanings = _attribute_docstrings(schema)
    for name, (kind, aliases, default) in _fields(schema).items():
        if dataclasses.is_dataclass(kind):
            yield from options(kind, f"{prefix}{name}.")
        else:
            is_choice = typing.get_origin(kind) is typing.Literal
            choices = typing.get_args(kind) if is_choice else ()
            meaning = meanings.get(name, "")
            yield Option(f"{prefix}{name}", aliases, choices, default, meaning)


def check_ranges(config: Any, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Checks options against their least and greatest values; none may be infinite.

    Raises:
        InputError: One is out of its range.
    """
    for name, (low, high) in ranges.items():
        value = attrgetter(name)(config)
        if not low <= value <= high or math.isinf(value):
            expected = f"at least {low}" if high == math.inf else f"{low} to {high}"
            raise InputError(f"--{name}: expected {expected}, got {value}; change it")


def differences(one: Any, other: Any) -> list[str]:
    """Names of the options in which two configs of one schema differ."""

    def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
        for name, value in values.items():
            if isinstance(value, dict):
                yield from leaves(value, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}", value

    theirs = dict(leaves(to_mapping(other)))
    return [name for name, value in leaves(to_mapping(one)) if theirs[name] != value]


def config_file(argv: Sequence[str]) -> Path | None:
    """What ``--config`` names."""
    path = _preview(argv).config
    return None if path is None else Path(path)


class _Preview(NamedTuple):
    config: str | None
    folder: str | None
    rest: list[str]


def _preview(argv: Sequence[str]) -> _Preview:
    """What must be known before the schema is: ``--config`` and the folder of ``-m``."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config")
    without_config = parser.parse_known_args(list(argv))
    parser.add_argument("-m", "--model_path", "--model-path")
    both, _ = parser.parse_known_args(list(argv))
    return _Preview(both.config, both.model_path, without_config[1])


def _filled(argv: Sequence[str], bare: Mapping[str, str]) -> list[str]:
    """The command line with a value behind each option of ``bare`` that stands without."""
    words = []
    for word, following in zip(argv, [*argv[1:], "--"], strict=True):
        is_bare = word in bare and following.startswith("-")
        words.append(f"{word}={bare[word]}" if is_bare else word)
    return words


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
    except (yaml.YAMLError, ValueError) as error:  # 2021-13-45 looks like a date, 0b_ like a number
        reason = " ".join(str(error).replace(f'in "{path}",', "at").split())
        raise InputError(f"{path}: is not YAML ({reason}); correct it") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected 'section:' and below it 'key: value', got {values!r}")
    return values


def _build(schema: type[Schema], values: Any, where: str, known: Sequence[str]) -> Schema:
    if not isinstance(values, dict):
        raise InputError(f"{where}: expected 'key: value' below it, got {values!r}")
    fields = _fields(schema)
    found = {}
    for name, value in values.items():
        if name not in fields:
            raise InputError(f"{where}: unknown key {name!r}; {_nearest(str(name), fields, known)}")
        kind = fields[name][0]
        place = f"{where}: {name}"
        if dataclasses.is_dataclass(kind):
            found[name] = _build(kind, {} if value is None else value, place, known)
        else:
            found[name] = _convert(kind, value, place)
    return schema(**found)


def _nearest(name: str, here: Mapping[str, Any], known: Sequence[str]) -> str:
    """A proposal: a key of this section, else one of that name in another."""
    if near := difflib.get_close_matches(name, here, n=1):
        return f"did you mean {near[0]!r}?"
    leaves = {option.rpartition(".")[2]: option for option in known}
    if near := difflib.get_close_matches(name, leaves, n=1):
        section, _, key = leaves[near[0]].rpartition(".")
        return f"did you mean {key!r} of section {section!r}?" if section else f"see {key!r}"
    return f"known keys: {', '.join(here)}"


def _convert(kind: Any, value: Any, where: str) -> Any:
    """A YAML value as an option's type; numbers without a point or with only an exponent pass."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal and value in arguments:
        return value
    if origin is tuple and isinstance(value, list):
        return tuple(_convert(arguments[0], item, where) for item in value)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (kind,) = (argument for argument in arguments if argument is not type(None))
        return _convert(kind, value, where)
    if kind is float and not isinstance(value, bool):
        with suppress(TypeError, ValueError, OverflowError):
            number = float(value)  # YAML takes 1e-3 for text
            if math.isfinite(number):
                return number
    if kind is str and isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # a frame number, a folder named 2
    if kind in (int, str, bool) and type(value) is kind:
        return value
    raise InputError(f"{where}: expected {_describe(kind)}, got {value!r}")


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


def _fields(schema: type) -> dict[str, tuple[Any, tuple[str, ...], Any]]:
    """Type, aliases and default of each field."""
    found = {}
    for name, kind in typing.get_type_hints(schema, include_extras=True).items():
        aliases: tuple[str, ...] = ()
        if typing.get_origin(kind) is typing.Annotated:
            kind, *extras = typing.get_args(kind)
            aliases = tuple(a for extra in extras for a in getattr(extra, "aliases", None) or ())
        found[name] = (kind, aliases, getattr(schema, name, None))
    return found


def _attribute_docstrings(schema: type) -> dict[str, str]:
    """What stands below each field in the source, on one line."""
    (definition,) = ast.parse(inspect.cleandoc("\n" + inspect.getsource(schema))).body
    meanings = {}
    for field, text in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            meanings[field.target.id] = " ".join(ast.literal_eval(text.value).split())
    return meanings
