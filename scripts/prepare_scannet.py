"""Prepares scans in ScanNet's layout for training: python scripts/prepare_scannet.py --root data.

What is there already is kept, so a stopped run goes on; a broken scan does not keep the others.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from detailbase.data.prepare import find_scans, prepare
from runs.errors import InputError, run


def main(argv: list[str]) -> None:
    """Prepares, and says what could not be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("data"), help="has scans/ or scannetv2/")
    parser.add_argument("--out", type=Path, help="by default beside scans/")
    parser.add_argument("--workers", type=int, default=0, help="processes; 0 is one for each core")
    parser.add_argument("--force", action="store_true", help="also what is prepared already")
    args = parser.parse_args(argv)
    summary = prepare(find_scans(args.root, args.out), args.workers, args.force)
    print(
        f"{len(summary.prepared)} scans prepared, {len(summary.kept)} were there already, "
        f"{len(summary.broken)} are broken"
    )
    for reason in summary.broken.values():
        print(f"  {reason}")
    if summary.broken:
        raise InputError(f"{len(summary.broken)} scans could not be prepared, see above")


if __name__ == "__main__":
    run(main)
