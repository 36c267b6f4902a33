"""Fields of json files, taken with their kinds checked."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from refer3d.runs.errors import InputError

_KINDS = {str: "a string", list: "a list", dict: "an object", float: "a number", int: "an integer"}


def read_json(path: Path) -> dict[str, Any]:
    """The object that a json file holds.

    Raises:
        InputError: If it is not json, or json of another kind.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}, line {error.lineno}: is not json ({error.msg}); correct or copy it again"
        ) from None
    except RecursionError:
        raise InputError(f"{path}: is not json that anybody wrote; copy it again") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not json: not UTF-8 text; save it as UTF-8") from None
    return as_kind(value, dict, str(path))


def as_kind(value: Any, kind: type, where: str) -> Any:
    """``value``, if it is of that kind; a whole number is a number too, a truth value is none.

    Raises:
        InputError: If it is of another kind, or a number that is not finite.
    """
    kinds = (int, float) if kind is float else (kind,)
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise InputError(f"{where}: expected {_KINDS[kind]}, got {_short(value)}; correct the file")
    if kind is float and not math.isfinite(value):
        raise InputError(f"{where}: expected a finite number, got {value}; correct the file")
    return value


def take(record: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
    """The field ``key`` of a json object.

    Raises:
        InputError: If the field is missing or of another kind.
    """
    if key not in record:
        known = ", ".join(map(repr, record)) or "nothing"
        raise InputError(f"{where}: expected the key {key!r}, got {known}; add it")
    return as_kind(record[key], kind, f"{where}: {key}")


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
