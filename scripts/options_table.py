"""Prints a model's options as a Markdown table: python scripts/options_table.py refersplat.

``--write FILE`` puts it into the document, behind the line that names this script.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from refer3d.runs.files import atomic_write
from refer3d.runs.options import options

MARK = "<!-- options: made by scripts/options_table.py, tested -->\n"


def table(model: str) -> str:
    """The whole table."""
    schema = importlib.import_module(f"{model}.config").Config
    lines = ["| option | default | range | meaning |", "|---|---|---|---|"]
    for option in options(schema):
        names = " ".join(f"`{name}`" for name in (*option.aliases, f"--{option.name}"))
        values = option.default if isinstance(option.default, tuple) else (option.default,)
        default = " ".join(map(str, values))
        default = default and f"`{default}`"
        limits = option.bounds or ", ".join(f"`{choice}`" for choice in option.choices)
        meaning = option.meaning.replace("``", "`")
        lines.append(f"| {names} | {default} | {limits} | {meaning} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Prints the table, or writes it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="Markdown file to put the table into")
    parser.add_argument("model", choices=("refersplat", "detailbase"))
    arguments = parser.parse_args()
    if arguments.write is None:
        print(table(arguments.model), end="")
        return
    before = arguments.write.read_text(encoding="utf-8").split(MARK)[0]
    with atomic_write(arguments.write) as file:
        file.write(f"{before}{MARK}\n{table(arguments.model)}".encode())


if __name__ == "__main__":
    main()
