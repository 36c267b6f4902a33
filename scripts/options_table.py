"""Prints the options of refersplat as a Markdown table: python scripts/options_table.py.

``--write docs/refersplat.md`` puts it into the document, behind the line that names this script.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import itertools
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from refersplat import config
from runs.files import write_whole

MARK = "<!-- options: made by scripts/options_table.py, tested -->\n"


def docstrings(schema: type) -> dict[str, str]:
    """The text under each field of a dataclass."""
    body = ast.parse(inspect.getsource(schema)).body[0].body
    return {
        before.target.id: " ".join(after.value.value.split())
        for before, after in itertools.pairwise(body)
        if isinstance(before, ast.AnnAssign)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
    }


def default_of(field: Field) -> Any:
    """A field's default."""
    return field.default if field.default is not MISSING else field.default_factory()


def rows(schema: type, prefix: str = "") -> list[str]:
    """One line of the table for each option."""
    texts, types = docstrings(schema), get_type_hints(schema, include_extras=True)
    lines = []
    for field in fields(schema):
        default = default_of(field)
        if is_dataclass(default):
            lines += rows(type(default), f"{prefix}{field.name}.")
            continue
        names, kind = [f"--{prefix}{field.name}"], types[field.name]
        if get_origin(kind) is Annotated:
            kind, *extras = get_args(kind)
            names = [alias for extra in extras for alias in extra.aliases or ()] + names
        text = texts.get(field.name, "").replace("``", "`")
        choices = [str(choice) for choice in get_args(kind) if isinstance(choice, str)]
        if choices:
            text += f" One of {', '.join(f'`{choice}`' for choice in choices)}."
        shown = f"`{default}`" if default not in ("", ()) else ""
        lines.append(f"| {' '.join(f'`{name}`' for name in names)} | {shown} | {text.strip()} |")
    return lines


def table() -> str:
    """The whole table."""
    return "\n".join(["| option | default | meaning |", "|---|---|---|", *rows(config.Config), ""])


def main() -> None:
    """Prints the table, or writes it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="Markdown file to put the table into")
    arguments = parser.parse_args()
    if arguments.write is None:
        print(table(), end="")
        return
    before = arguments.write.read_text(encoding="utf-8").split(MARK)[0]
    with write_whole(arguments.write) as file:
        file.write(f"{before}{MARK}\n{table()}".encode())


if __name__ == "__main__":
    main()
