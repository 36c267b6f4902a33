"""Writes the kinds of things that refer3d.language knows, from WordNet 3.1.

python scripts/make_kinds.py FOLDER

FOLDER holds WordNet's data.noun and index.noun. Only nouns of what one can point at are kept:
animals, artifacts, food, natural objects, plants and substances.
"""

from __future__ import annotations

import argparse
import gzip
import sys
from collections.abc import Iterator
from pathlib import Path

OUT = Path(__file__).parents[1] / "submodules" / "refer3d" / "language" / "kinds.txt.gz"
FILES = {"03": "tops", "05": "animal", "06": "artifact", "13": "food", "17": "object",
         "20": "plant", "27": "substance"}  # fmt: skip
"""WordNet's lexicographer files that are kept."""
BINOMIAL = ("05", "20")
"""Files whose capitalised words are Latin names."""


def records(path: Path) -> Iterator[list[str]]:
    """Yields the fields of each line below the licence, without the gloss."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith(" "):
            yield line.partition(" | ")[0].split()


def main(argv: list[str] | None = None) -> None:
    """Reads the folder and writes ``kinds.txt.gz``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(argv).folder
    parents, latin = {}, set()
    for number, file, _, count, *rest in records(folder / "data.noun"):
        words, rest = rest[: 2 * int(count, 16) : 2], rest[2 * int(count, 16) + 1 :]
        pointers = list(zip(rest[::4], rest[1::4], strict=False))
        if file not in FILES or any(kind == "@i" for kind, _ in pointers):  # a name, not a kind
            continue
        parents[number] = [target for kind, target in pointers if kind == "@"]
        latin |= {w.lower() for w in words if file in BINOMIAL and w[0].isupper()}
    line_of = {number: str(line) for line, number in enumerate(parents)}
    lines = [",".join(line_of[p] for p in found if p in line_of) for found in parents.values()]
    lines.append("=")
    for word, *_, senses in ((r[0], r[-int(r[2]) :]) for r in records(folder / "index.noun")):
        kept = [line_of[number] for number in senses if number in line_of]
        if kept and word not in latin:
            lines.append(f"{word.replace('_', ' ')}:{','.join(kept)}")
    with open(OUT, "wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write("\n".join(lines).encode())
    sys.stdout.write(f"{OUT}: {len(parents)} kinds, {OUT.stat().st_size} bytes\n")


if __name__ == "__main__":
    main()
