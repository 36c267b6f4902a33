"""Preparation of scans in ScanNet's layout: files that training reads quickly."""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import re
import signal
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import torch

from detailbase.command import read_prepare
from detailbase.scans.clouds import SUFFIX, save_cloud
from detailbase.scans.scannet import OBJECTS, SEGMENTS, missing_files, read_scan
from refer3d.runs.errors import InputError
from refer3d.runs.files import HOUR, decode_text, sweep_drafts
from refer3d.runs.progress import Progress
from refer3d.runs.records import short

log = logging.getLogger(__name__)

FOLDERS = {"train": "train", "val": "val", "test": "val"}
"""Output folder of each list's scans. DetailRefer's test scans are ones of ScanNet's val; they go
there whichever list names them, so that another dataset may have a list of its own."""


class Scan(NamedTuple):
    """Input and output of a preparation."""

    folder: Path
    out: Path


class Summary(NamedTuple):
    """Results of all scans, by name."""

    prepared: list[str]
    kept: list[str]
    """Scans that had been prepared before."""
    missing: dict[str, str]
    """Absent files of prepared and kept scans."""
    broken: dict[str, str]
    """Errors of the others."""


def find_scans(root: Path, out: Path | None = None, split: str = "all") -> list[Scan]:
    """Finds the scans that the lists ``scannetv2_{train,val,test}.txt`` name.

    Args:
        root: Folder with ``scans/``, itself or in its ``scannetv2/``; the lists stand beside
            ``scans/``, in ``meta_data/`` or ``meta/`` there, or in ``root``.
        out: Folder of the prepared scans; the default is that of ``scans/``.
        split: ``train``; ``val``, which includes the list of test; or ``all``.

    Raises:
        InputError: There are no scans or no lists.
    """
    base = next((b for b in (root / "scannetv2", root) if (b / "scans").is_dir()), None)
    if base is None:
        raise InputError(
            f"{root}: holds neither scans/ nor scannetv2/scans/; ScanNet v2 is given out at "
            "http://www.scan-net.org after its terms of use are signed"
        )
    places = (base, base / "meta_data", base / "meta", root, root / "meta_data")
    scans: dict[str, Scan] = {}
    for name, target in FOLDERS.items():
        if split not in ("all", target):
            continue
        lists = [place / f"scannetv2_{name}.txt" for place in places]
        path = next((path for path in lists if path.is_file()), None)
        if path is None:
            continue
        for scene_id in read_names(path):
            folder = base / "scans" / scene_id
            if name == "test" and not folder.is_dir():
                continue  # ScanNet's own test scans have no objects and lie elsewhere
            target_path = (out or base) / target / f"{scene_id}{SUFFIX}"
            scans.setdefault(scene_id, Scan(folder, target_path))
    if not scans:
        names = " or ".join(f"scannetv2_{n}.txt" for n in ("train", "val") if split in ("all", n))
        raise InputError(
            f"{base}: holds no {names} with names of scans; they are in ScanNet's repository "
            "under Tasks/Benchmark"
        )
    return list(scans.values())


def read_names(path: Path) -> list[str]:
    """Reads a list of scans.

    Raises:
        InputError: A name is not that of a folder in ``scans/``.
    """
    names = decode_text(path.read_bytes()).split()
    for name in names:
        if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
            raise InputError(
                f"{path}: expected names of scans, such as scene0000_00, got {short(name)}; "
                "correct the list"
            )
    return names


def prepare(scans: Sequence[Scan], workers: int = 0, force: bool = False) -> Summary:
    """Prepares scans in several processes; a broken one does not stop the others.

    Args:
        scans: Scans of :func:`find_scans`.
        workers: Number of processes; 0 takes one per core.
        force: Whether to prepare again what is there. A stopped run leaves only complete files.

    Raises:
        InputError: A process was killed.
    """
    summary = Summary([], [], {}, {})
    todo = [scan for scan in scans if force or not scan.out.is_file()]
    for scan in scans:
        if scan not in todo:
            summary.kept.append(scan.folder.name)
            if scan.folder.is_dir() and (missing := missing_files(scan.folder)):
                summary.missing[scan.folder.name] = describe_missing(scan, missing)
    if not todo:
        return summary
    # One thread per process: the processes share the cores.
    count = min(workers or os.cpu_count() or 1, len(todo))
    pool = ProcessPoolExecutor(count, initializer=_start_worker)
    try:
        with Progress("scans", len(todo)) as progress:
            jobs = {pool.submit(prepare_scan, scan): scan.folder.name for scan in todo}
            for job in as_completed(jobs):
                try:
                    if missing := job.result():
                        summary.missing[jobs[job]] = missing
                    summary.prepared.append(jobs[job])
                except InputError as error:
                    summary.broken[jobs[job]] = str(error)
                except OSError as error:
                    summary.broken[jobs[job]] = f"{error.filename}: {error.strerror or error}"
                progress.advance()
    except BrokenExecutor as error:
        raise InputError(
            "--workers: a process was killed, perhaps because memory ran out; give fewer, and what "
            "is prepared is kept"
        ) from error
    finally:  # after Ctrl-C, too: finishes the running scans, starts no others
        pool.shutdown(cancel_futures=True)
    return summary


def _start_worker() -> None:
    """Ends a process with its parent, however that ends; Ctrl-C reaches the parent alone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()


def prepare_scan(scan: Scan) -> str:
    """Prepares a scan; returns a description of its absent files.

    Raises:
        InputError: The scan is absent or broken.
    """
    if not scan.folder.is_dir():
        raise InputError(f"{scan.folder}: no such folder; copy the scan, or take it off the list")
    cloud, missing = read_scan(scan.folder)
    save_cloud(cloud, scan.out)
    return describe_missing(scan, missing) if missing else ""


def describe_missing(scan: Scan, missing: Sequence[str]) -> str:
    """Describes a scan's absent files and the consequence."""
    text = f"{scan.folder}: has no {', '.join(missing)}"
    if SEGMENTS in missing:
        return text + "; its superpoints are computed, its objects unknown"
    return text + ("; its objects are unknown" if OBJECTS in missing else "")


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    prepare_all(read_prepare(argv))


def prepare_all(args: argparse.Namespace) -> None:
    """Prepares the scans and prints a summary.

    Raises:
        InputError: The folder cannot be written, or a scan is broken.
    """
    scans = find_scans(args.root, args.out, args.split)
    out = scans[0].out.parents[1]
    try:
        out.mkdir(parents=True, exist_ok=True)
        is_writable = os.access(out, os.W_OK)
    except OSError:
        is_writable = False
    if not is_writable:
        raise InputError(f"{out}: cannot be written; name another folder by --out")
    sweep_drafts(out, HOUR)
    summary = prepare(scans, args.workers, args.force)
    lines = [
        f"{out}: {len(summary.prepared)} scans prepared, {len(summary.kept)} were there already, "
        f"{len(summary.missing)} lack files, {len(summary.broken)} are broken",
        *(f"  {reason}" for reason in (*summary.missing.values(), *summary.broken.values())),
    ]
    if summary.missing:
        lines.append("  Once those files are there, run again with --force.")
    sys.stdout.write("\n".join([*lines, ""]))
    if summary.broken:
        raise InputError(f"{len(summary.broken)} scans could not be prepared, see above")
