"""Where the files of a dataset lie, and where to ask for those that are missing."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from detailbase.config import DataConfig
from detailbase.descriptions.references import Reference, read_references
from refer3d.runs.errors import InputError

FILES = {
    "detailrefer": "DetailRefer/DetailRefer_{split}.json",
    "scanrefer": "ScanRefer/ScanRefer_filtered_{split}.json",
    "multi3drefer": "Multi3DRefer/multi3drefer_{split}.json",
}
"""Where a dataset's descriptions lie below the root."""
SOURCES = {
    "detailrefer": "DetailRefer comes with the code of 3D-DRES (Chen et al., AAAI 2026, arXiv "
    "2603.02896)",
    "scanrefer": "ScanRefer is given out at https://daveredrum.github.io/ScanRefer after its form",
    "multi3drefer": "Multi3DRefer is given out at https://3dlg-hcvc.github.io/multi3drefer",
    "scans": "ScanNet v2 is given out at http://www.scan-net.org after its terms of use are signed",
}
"""Where to ask."""


def description_file(root: Path | str, dataset: str, split: str) -> Path:
    """Where a dataset's descriptions of a split are to lie."""
    return Path(root) / FILES[dataset].format(split=split)


def read_split(options: DataConfig, dataset: str, split: str) -> list[Reference]:
    """A dataset's descriptions, of the scans that the options choose.

    Raises:
        InputError: The file is absent or wrong, or describes none of them.
    """
    path = description_file(options.root, dataset, split)
    if not path.is_file():
        raise InputError(f"{path}: no such file; {SOURCES[dataset]}; or name another --data.root")
    references = read_references(path, dataset)
    if not options.scenes:
        return references
    chosen = [one for one in references if is_chosen(one.scene_id, options.scenes)]
    if not chosen:
        raise InputError(
            f"--data.scenes: {path} describes no scan that {' or '.join(options.scenes)} names; "
            f"its first is {references[0].scene_id}"
        )
    return chosen


def is_chosen(scene_id: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern such as ``scene09[02]*`` fits."""
    return any(fnmatch(scene_id, pattern) for pattern in patterns)


def prepared_folder(options: DataConfig) -> Path:
    """Where prepared scans lie."""
    if options.prepared:
        return Path(options.prepared)
    nested = Path(options.root, "scannetv2")
    return nested if nested.is_dir() else Path(options.root)
