"""Prepare scans in ScanNet's layout for training: python scripts/prepare_scannet.py --root data.

The same as ``detailbase prepare``.
"""

from __future__ import annotations

from detailbase.scans.prepare import main
from refer3d.runs.errors import run

if __name__ == "__main__":
    run(main)
