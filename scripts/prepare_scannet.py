"""Prepares scans in ScanNet's layout for training: python scripts/prepare_scannet.py --root data.

What is there already is kept, so a stopped run goes on; a broken scan does not keep the others, and
makes the exit status 2.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from detailbase.scans.prepare import find_scans, prepare
from refer3d.runs.errors import InputError, run


def main(argv: list[str]) -> None:
    """Prepares, and says what could not be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("data"), help="has scans/ or scannetv2/")
    parser.add_argument("--out", type=Path, help="by default beside scans/")
    parser.add_argument(
        "--split", choices=("train", "val", "all"), default="all", help="test's scans are in val"
    )
    parser.add_argument("--workers", type=int, default=0, help="processes; 0 is one for each core")
    parser.add_argument("--force", action="store_true", help="also what is prepared already")
    args = parser.parse_args(argv)
    if args.workers < 0:
        raise InputError(f"--workers: expected 0 or more, got {args.workers}; leave it out")
    scans = find_scans(args.root, args.out, args.split)
    out = scans[0].out.parents[1]
    try:
        out.mkdir(parents=True, exist_ok=True)
        is_writable = os.access(out, os.W_OK)
    except OSError:
        is_writable = False
    if not is_writable:
        raise InputError(f"{out}: cannot be written; name another folder by --out")
    summary = prepare(scans, args.workers, args.force)
    print(
        f"{out}: {len(summary.prepared)} scans prepared, {len(summary.kept)} were there already, "
        f"{len(summary.missing)} lack files, {len(summary.broken)} are broken"
    )
    for reason in (*summary.missing.values(), *summary.broken.values()):
        print(f"  {reason}")
    if summary.missing:
        print("  Once those files are there, run again with --force.")
    if summary.broken:
        raise InputError(f"{len(summary.broken)} scans could not be prepared, see above")


if __name__ == "__main__":
    run(main)
