"""Prepare scans in ScanNet's layout for training: python scripts/prepare_scannet.py --root data.

The same as ``detailbase prepare``.
"""

from __future__ import annotations

from refer3d.runs.errors import run


def main(argv: list[str]) -> None:
    """Runs ``detailbase prepare``."""
    from detailbase.__main__ import main

    main(["prepare", *argv])


if __name__ == "__main__":
    run(main)
