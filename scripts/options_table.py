"""Prints the options of refersplat as a Markdown table: python scripts/options_table.py.

``--write docs/refersplat.md`` puts it into the document, behind the line that names this script.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from refersplat.config import Config
from runs.config import options
from runs.files import write_whole

MARK = "<!-- options: made by scripts/options_table.py, tested -->\n"


def table() -> str:
    """The whole table."""
    lines = ["| option | default | meaning |", "|---|---|---|"]
    for option in options(Config):
        names = " ".join(f"`{name}`" for name in (*option.aliases, f"--{option.name}"))
        default = "" if option.default in ("", ()) else f"`{option.default}`"
        meaning = option.meaning.replace("``", "`")
        if option.choices:
            meaning += f" One of {', '.join(f'`{choice}`' for choice in option.choices)}."
        lines.append(f"| {names} | {default} | {meaning} |")
    return "\n".join([*lines, ""])


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
