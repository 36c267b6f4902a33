"""Stores the weights of a detailbase best.pth as bytes: a quarter of the size, as in the demo.

python scripts/shrink_checkpoint.py best.pth small.pth
"""

from __future__ import annotations

import argparse
from pathlib import Path

from detailbase.model.weights import read_weights, to_bytes
from refer3d.runs.errors import run
from refer3d.runs.states import read_tensors, save_state


def main(argv: list[str]) -> None:
    """Reads, rounds, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args(argv)
    weights = to_bytes(read_weights(args.checkpoint))
    whole = read_tensors(args.checkpoint, "name a best.pth")
    content = whole if "model" in whole else {}
    save_state(args.out, {**content, "model": weights})


if __name__ == "__main__":
    run(main)
