"""Kills programs at random moments and compares their ends with undisturbed ones.

python -m benchmarks.kills --kills 50

Each program works on a scene of a few pixels or points, in a forked process with all packages
imported, so that kills meet its work. It is killed and called again until it ends. Then its folder
must hold the files of an undisturbed run, the same bits in all but times, and no process lives on.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import detailbase.descriptions.describe
import detailbase.evaluate
import detailbase.scans.prepare
import detailbase.train
import refersplat.evaluate
import refersplat.pictures
import refersplat.train
from refer3d.runs.files import HOUR
from refersplat.config import DataConfig
from refersplat.data import load_scene
from refersplat.labels.files import save_label
from tests.detailbase.commands.conftest import SMALL, write_rooms
from tests.detailbase.data.conftest import SmallScan
from tests.refersplat.commands.conftest import write_balls
from tests.refersplat.data.conftest import SmallScene

TIMES = {"seconds", "peak_mib", "peak_memory_mib", "stages"}
"""Fields that are no part of the result."""
LOGS = {"timings.json", "train.log", ".lock", "report.html"}
"""Files that are no part of it."""
NUM_SCANS = 12
CONTEXT = multiprocessing.get_context("fork")


class Program(NamedTuple):
    """A program; the first folder holds its input, the second one its results."""

    run: Callable[[Path, Path], object]
    """Runs it, also after it was killed."""
    needs: str = ""
    """A program whose results it goes on with."""


def train_scene(data: Path, out: Path) -> None:
    resume = ["--resume"] if (out / "config.yaml").exists() else []
    refersplat.train.main([*("-s", str(data / "balls"), "-m", str(out), "--eval", *resume),
        *("--text.encoder", "hash", "--rgb.iterations", "60", "--rgb.checkpoint_every", "20"),
        *("--train.iterations", "40", "--train.checkpoint_every", "10")])  # fmt: skip


def train_rooms(data: Path, out: Path) -> None:
    resume = [f"--resume={out}/last.pth"] if (out / "last.pth").exists() else []
    options = [*SMALL, "--epochs", "3", "--train.checkpoint_every", "1"]
    root = ("--data.root", str(data / "rooms"), "--work_dir", str(out))
    detailbase.train.main([*root, *options, *resume])


def render(data: Path, out: Path) -> None:
    refersplat.pictures.main(["-m", str(out)])


def score_scene(data: Path, out: Path) -> None:
    refersplat.evaluate.main(["-m", str(out)])


def score_rooms(data: Path, out: Path) -> None:
    detailbase.evaluate.main(["--checkpoint", str(out / "best.pth")])


def save(data: Path, out: Path) -> None:
    """Saves a label, as the viewer does."""
    if not out.exists():
        SmallScene(out).write()
    scene = load_scene(DataConfig(scene=str(out)))
    mask = np.zeros((30, 40), dtype=bool)
    mask[3:20, 5:30] = True
    masks = {view.name: mask for view in scene.views}
    for name in ("a mug", "cup", "the box"):
        save_label(scene, name, [f"the {name}", "what is left"], masks)


def prepare(data: Path, out: Path) -> None:
    arguments = ["--root", str(data / "scans"), "--out", str(out), "--workers", "1"]
    detailbase.scans.prepare.main(arguments)


def describe(data: Path, out: Path) -> None:
    arguments = ["--root", str(data / "scans"), "--out", str(out / "described.json")]
    detailbase.descriptions.describe.main(arguments)


PROGRAMS = {
    "refersplat train": Program(train_scene),
    "render": Program(render, "refersplat train"),
    "refersplat eval": Program(score_scene, "refersplat train"),
    "detailbase train": Program(train_rooms),
    "detailbase eval": Program(score_rooms, "detailbase train"),
    "prepare": Program(prepare),
    "describe": Program(describe),
    "viewer's save": Program(save),
}


def write_data(folder: Path) -> None:
    """Writes the input of all programs."""
    write_balls(folder / "balls")
    write_rooms(folder / "rooms")
    names = [f"scene{number:04d}_00" for number in range(NUM_SCANS)]
    for name in names:
        SmallScan(folder / "scans" / "scans" / name).write()
    (folder / "scans" / "scannetv2_train.txt").write_text("\n".join(names))


def call(program: Program, data: Path, out: Path, seconds: float | None = None) -> bool:
    """Runs a program, and kills it after some seconds; returns whether it ended by itself."""
    process = CONTEXT.Process(target=_run, args=(program, data, out))
    process.start()
    process.join(seconds)
    ended = process.exitcode is not None
    process.kill()
    process.join()
    if process.exitcode not in (0, -9):
        raise SystemExit(f"ended with {process.exitcode}")
    for _ in range(100):  # its own processes notice within moments
        try:
            os.killpg(process.pid or 0, 0)
        except ProcessLookupError:
            return ended
        time.sleep(0.1)
    raise SystemExit("its processes live on")


def _run(program: Program, data: Path, out: Path) -> None:
    os.setpgid(0, 0)
    for stream in (1, 2):
        os.dup2(os.open(data.parent / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    program.run(data, out)


def content(folder: Path) -> dict[str, Any]:
    """Reads all files of a folder; tensors and plain values by name, other files as bytes."""
    result: dict[str, Any] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in LOGS):
        name = path.relative_to(folder).as_posix()
        if path.suffix in (".pt", ".pth"):
            result |= values(torch.load(path, weights_only=True), name)
        elif path.suffix == ".json":
            result |= values(json.loads(path.read_text()), name)
        elif not name.startswith("events.out"):
            result[name] = path.read_bytes()
    return result


def values(state: Any, name: str) -> dict[str, Any]:
    """Flattens a state to tensors and plain values by name."""
    if isinstance(state, dict | list | tuple):
        items = state.items() if isinstance(state, dict) else enumerate(state)
        parts = (values(v, f"{name}: {k}") for k, v in items if k not in TIMES)
        return {key: value for part in parts for key, value in part.items()}
    return {name: state}


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names what differs between two folders."""

    def is_same(a: Any, b: Any) -> bool:
        return a.equal(b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a == b

    return [n for n in sorted({*one, *other}) if not is_same(one.get(n), other.get(n))]


def main() -> None:
    """Prints the number of kills of each program; stops where an end differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("programs", nargs="*", help=f"of {', '.join(PROGRAMS)}; all by default")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, out = folder / "data", folder / "out"
        write_data(data)
        for title in args.programs or PROGRAMS:
            kill(title, data, out, args)


def kill(title: str, data: Path, out: Path, args: argparse.Namespace) -> None:
    """Kills a program at random moments."""
    program, rng = PROGRAMS[title], random.Random(f"{args.seed} {title}")
    begun = data.parent / program.needs
    if program.needs and not begun.exists():
        call(PROGRAMS[program.needs], data, out)
        out.rename(begun)
    kills = runs = 0
    whole: dict[str, Any] = {}
    duration = 0.0
    while kills < args.kills:
        shutil.rmtree(out, ignore_errors=True)
        if program.needs:
            shutil.copytree(begun, out)
        start = time.perf_counter()
        if not whole:
            call(program, data, out)
            whole, duration = content(out), time.perf_counter() - start
            continue
        while not call(program, data, out, rng.uniform(0, duration)):
            kills += 1
            for draft in out.rglob(".*.tmp"):  # folders that others write to are swept of old ones
                os.utime(draft, (time.time() - 2 * HOUR,) * 2)
        runs += 1
        if wrong := differences(whole, content(out)):
            raise SystemExit(f"{title}: after {kills} kills differ: {', '.join(wrong[:5])}")
    print(f"{title}: {kills} kills, {runs} ends, same bits ({duration:.1f} s)", flush=True)


if __name__ == "__main__":
    main()
