"""Preparation of scans: both layouts, prepared scans stay, broken ones are errors."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from detailbase.scans.clouds import load_cloud
from detailbase.scans.prepare import find_scans, prepare
from detailbase.scans.scannet import read_scan
from refer3d.runs.errors import InputError, run
from tests.errors import raises

from .conftest import SmallScan, cut

ROOT = Path(__file__).parents[3]


def names(scans):
    return [(scan.out.parent.name, scan.out.name) for scan in scans]


ALL = [
    ("train", "scene0000_00_refer.pth"),
    ("train", "scene0001_00_refer.pth"),
    ("val", "scene0002_00_refer.pth"),
]


@pytest.fixture
def program(monkeypatch, capsys):
    """Runs the script; returns its exit status and its output."""
    spec = importlib.util.spec_from_file_location("script", ROOT / "scripts/prepare_scannet.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def call(*argv: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["prepare_scannet.py", *map(str, argv)])
        with pytest.raises(SystemExit) as ended:
            run(module.main)
        output = capsys.readouterr()
        return ended.value.code, output.out, output.err

    return call


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_lists_may_come_from_windows(make_dataset, encoding):
    root = make_dataset(nested=False)
    expected = names(find_scans(root, split="train"))
    path = next(root.rglob("scannetv2_train.txt"))
    text = path.read_text().replace("\n", "\r\n")
    path.write_bytes(text.encode(encoding))
    assert names(find_scans(root, split="train")) == expected


@pytest.mark.parametrize("nested", [False, True])
def test_finds_scans_in_both_layouts(make_dataset, nested):
    root = make_dataset(nested=nested)
    base = root / "scannetv2" if nested else root
    scans = find_scans(root)
    assert names(scans) == ALL
    assert [scan.folder.parent for scan in scans] == [base / "scans"] * 3
    assert all(scan.out.parents[1] == base for scan in scans)
    assert names(find_scans(root, split="train")) == ALL[:2]
    assert names(find_scans(root, split="val")) == ALL[2:]


@pytest.mark.parametrize("place", [".", "scannetv2/meta_data", "scannetv2"])
def test_lists_may_lie_in_several_places(make_dataset, place):
    root = make_dataset(nested=True)
    (root / place).mkdir(exist_ok=True)
    for path in sorted((root / "scannetv2").glob("*.txt")):
        path.rename(root / place / path.name)
    assert names(find_scans(root)) == ALL


def test_scans_of_the_test_list_lie_with_those_of_val(make_dataset):
    """If they are there: ScanNet's own lie elsewhere. Who is in two lists is taken once."""
    root = make_dataset()
    SmallScan(root / "scans" / "scene0003_00").write()
    (root / "scannetv2_test.txt").write_text("scene0707_00\nscene0003_00\nscene0002_00\n")
    assert names(find_scans(root)) == [*ALL, ("val", "scene0003_00_refer.pth")]
    assert names(find_scans(root, split="val"))[-1] == ("val", "scene0003_00_refer.pth")


def test_what_is_there_is_kept(make_dataset, tmp_path):
    scans = find_scans(make_dataset(), tmp_path / "out")
    first = prepare(scans[:2], workers=2)
    assert sorted(first.prepared) == ["scene0000_00", "scene0001_00"]
    before = [scan.out.stat().st_mtime_ns for scan in scans[:2]]
    second = prepare(scans, workers=1)
    assert second.kept == ["scene0000_00", "scene0001_00"]
    assert second.prepared == ["scene0002_00"]
    assert [scan.out.stat().st_mtime_ns for scan in scans[:2]] == before
    assert len(prepare(scans, force=True).prepared) == 3
    expected, _ = read_scan(scans[0].folder)
    assert torch.equal(load_cloud(scans[0].out).instances, expected.instances)


def test_a_broken_scan_does_not_keep_the_others(make_dataset, program):
    root = make_dataset()
    cut(SmallScan(root / "scans" / "scene0001_00").mesh, 400)
    status, output, error = program("--root", root, "--workers", "2")
    assert status == 2
    assert "2 scans prepared, 0 were there already, 0 lack files, 1 are broken" in output
    assert "scene0001_00_vh_clean_2.ply: cannot be read as PLY" in output
    assert "error: 1 scans could not be prepared, see above" in error
    assert not (root / "train" / "scene0001_00_refer.pth").exists()
    assert program("--root", root)[0] == 2
    SmallScan(root / "scans" / "scene0001_00").write_mesh()
    assert program("--root", root)[0] == 0


def test_absent_files_are_told(make_dataset, program):
    root = make_dataset()
    SmallScan(root / "scans" / "scene0000_00").segments.unlink()
    (root / "scannetv2_val.txt").write_text("scene0002_00 scene0009_00")
    status, output, _ = program("--root", root, "--split", "train")
    assert status == 0
    assert "segs.json; its superpoints are computed, its objects unknown" in output
    assert "run again with --force" in output
    status, again, _ = program("--root", root, "--split", "train")
    assert "0 scans prepared, 2 were there already, 1 lack files" in again
    assert "its objects unknown" in again
    status, output, _ = program("--root", root, "--split", "val", "--out", root / "other")
    assert status == 2
    assert "scene0009_00: no such folder; copy the scan, or take it off the list" in output
    assert (root / "other" / "val" / "scene0002_00_refer.pth").is_file()


def test_no_draft_is_left(make_dataset, program, tmp_path):
    assert program("--root", make_dataset(), "--out", tmp_path / "out")[0] == 0
    assert {path.suffix for path in (tmp_path / "out").rglob("*") if path.is_file()} == {".pth"}


def test_says_where_scannet_is_given_out(tmp_path, program):
    status, _, error = program("--root", tmp_path)
    assert status == 2
    assert "holds neither scans/ nor scannetv2/scans/; ScanNet v2 is given out at http" in error


def test_says_which_list_is_absent(make_dataset):
    root = make_dataset()
    (root / "scannetv2_train.txt").unlink()
    assert names(find_scans(root)) == ALL[2:]
    with pytest.raises(InputError, match=r"holds no scannetv2_train.txt with names of scans; they"):
        find_scans(root, split="train")
    (root / "scannetv2_val.txt").write_text("\n")
    with pytest.raises(InputError, match=r"no scannetv2_train.txt or scannetv2_val.txt with names"):
        find_scans(root)


def test_a_folder_that_cannot_be_written_is_told(make_dataset, program, tmp_path):
    (tmp_path / "file").touch()
    status, _, error = program("--root", make_dataset(), "--out", tmp_path / "file")
    assert status == 2
    assert "file: cannot be written; name another folder by --out" in error


def test_a_negative_number_of_workers_is_refused(make_dataset, program):
    status, _, error = program("--root", make_dataset(), "--workers", "-1")
    assert (status, "--workers: expected 0 or more, got -1" in error) == (2, True)


def test_a_killed_process_is_told(make_dataset, monkeypatch):
    monkeypatch.setattr("detailbase.scans.prepare.prepare_scan", _die)
    with pytest.raises(InputError, match=r"--workers: a process was killed, .*is prepared is kept"):
        prepare(find_scans(make_dataset()), workers=1)


def _die(scan):
    os._exit(9)


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "..", "a/b", "a\\b", "-", "\0"])
def test_a_list_names_no_file_elsewhere(make_dataset, name):
    root = make_dataset()
    (root / "scannetv2_train.txt").write_text(f"scene0000_00\n{name}\n")
    with raises(InputError, "scannetv2_train.txt", "scene0000_00"):
        find_scans(root)


def test_a_list_that_is_not_utf8_is_refused(make_dataset):
    root = make_dataset()
    (root / "scannetv2_train.txt").write_bytes(b"scene\xff\n")
    with raises(InputError, "scannetv2_train.txt"):
        find_scans(root)


WAIT = """
import os, sys, time
from concurrent.futures import ProcessPoolExecutor
from detailbase.scans.prepare import _start_worker

if __name__ == "__main__":
    pool = ProcessPoolExecutor(2, initializer=_start_worker)
    pids = {pool.submit(os.getpid).result() for _ in range(9)}
    print(*pids, flush=True)
    pool.submit(time.sleep, 99)
    time.sleep(99)
"""


def test_workers_end_with_a_killed_parent(tmp_path):
    (tmp_path / "wait.py").write_text(WAIT)
    with subprocess.Popen([sys.executable, tmp_path / "wait.py"], stdout=subprocess.PIPE) as parent:
        workers = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        parent.kill()
    gone, alive = psutil.wait_procs(workers, timeout=30)
    assert gone
    assert not alive
