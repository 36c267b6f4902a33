"""Scans in ScanNet's layout to files that training reads quickly."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import torch

from detailbase.data.clouds import SUFFIX, save_cloud
from detailbase.data.scannet import read_scan
from runs.errors import InputError
from runs.progress import Progress

log = logging.getLogger(__name__)

FOLDERS = {"train": "train", "val": "val", "test": "val"}
"""Where a split's scans go. DetailRefer's test scans are ones of ScanNet's val."""


class Scan(NamedTuple):
    """A scan to be prepared."""

    folder: Path
    out: Path


class Summary(NamedTuple):
    """What became of the scans."""

    prepared: list[str]
    kept: list[str]
    """Those that there were already."""
    broken: dict[str, str]
    """What is wrong with the others."""


def find_scans(root: Path, out: Path | None = None) -> list[Scan]:
    """The scans that the lists ``scannetv2_{train,val,test}.txt`` name.

    Args:
        root: Folder with ``scans/``, itself or in its ``scannetv2/``; the lists stand beside
            ``scans/``, in ``meta_data/`` there, or in ``root``.
        out: Where the prepared scans go; by default beside ``scans/``.

    Raises:
        InputError: There are no scans or no lists.
    """
    bases = [base for base in (root, root / "scannetv2") if (base / "scans").is_dir()]
    if not bases:
        raise InputError(
            f"{root}: holds neither scans/ nor scannetv2/scans/; ScanNet v2 is given out at "
            "http://www.scan-net.org after its terms of use are signed"
        )
    base = bases[0]
    found: dict[str, Scan] = {}
    for split, target in FOLDERS.items():
        name = f"scannetv2_{split}.txt"
        places = [place / name for place in (base, base / "meta_data", root)]
        listed = next((place for place in places if place.is_file()), None)
        if listed is None:
            continue
        for scene_id in listed.read_text(encoding="utf-8").split():
            if split == "test" and not (base / "scans" / scene_id).is_dir():
                continue  # ScanNet's own test scans have no objects and lie elsewhere
            path = (out or base) / target / f"{scene_id}{SUFFIX}"
            found.setdefault(scene_id, Scan(base / "scans" / scene_id, path))
    if not found:
        raise InputError(
            f"{base}: holds no scannetv2_train.txt or scannetv2_val.txt with names of scans; they "
            "are in ScanNet's repository under Tasks/Benchmark"
        )
    return list(found.values())


def prepare(scans: Sequence[Scan], workers: int = 0, force: bool = False) -> Summary:
    """Prepares scans in several processes; a broken one does not keep the others.

    Args:
        scans: From :func:`find_scans`.
        workers: How many processes; 0 takes one a core.
        force: Also those that are there already.
    """
    summary = Summary([], [], {})
    open_scans = []
    for scan in scans:
        if not force and scan.out.is_file():  # files are written whole or not at all
            summary.kept.append(scan.folder.name)
        else:
            open_scans.append(scan)
    workers = min(workers or os.cpu_count() or 1, max(1, len(open_scans)))
    with Progress("scans", len(open_scans)) as progress, ProcessPoolExecutor(workers) as pool:
        jobs = {pool.submit(prepare_scan, scan): scan.folder.name for scan in open_scans}
        for job in as_completed(jobs):
            progress.advance()
            name, error = jobs[job], job.result()
            if error is None:
                summary.prepared.append(name)
            else:
                summary.broken[name] = error
    return summary


def prepare_scan(scan: Scan) -> str | None:
    """Prepares one; returns what is wrong with it, if anything."""
    torch.set_num_threads(1)  # the processes share the cores
    try:
        if not scan.folder.is_dir():
            raise InputError(f"{scan.folder}: no such folder")
        save_cloud(read_scan(scan.folder), scan.out)
    except InputError as error:
        return str(error)
    return None
