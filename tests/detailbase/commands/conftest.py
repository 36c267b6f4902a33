"""Rooms of four coloured boxes with descriptions, and a short run on them."""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[3]
COLORS = {
    "red": (0.8, -0.8, -0.8),
    "green": (-0.8, 0.6, -0.8),
    "blue": (-0.8, -0.6, 0.9),
    "white": (0.9, 0.9, 0.9),
}
SPLITS = {"train": 4, "val": 1, "test": 1}
POINTS = 60
"""Points of each half of a box; the halves are superpoints."""
SMALL = (
    *("--text.encoder", "hash", "--device", "cpu", "--data.workers", "0"),
    *("--network.channels", "8", "16", "--network.width", "32", "--network.heads", "4"),
    *("--network.hidden", "32", "--network.layers", "2"),
)
"""Options of a network that learns within seconds."""


def make_room(seed: int):
    """Four boxes along a wall, in any order, on a floor that is no object; their ids are 1 to 4."""
    from detailbase.scans.clouds import NONE, Cloud

    rng = torch.Generator().manual_seed(seed)

    def block(low, high, count):
        low, high = torch.tensor(low), torch.tensor(high)
        return low + (high - low) * torch.rand(count, 3, generator=rng)

    xyz = [block((0.0, 0.0, 0.0), (4.0, 1.0, 0.02), 200)]
    rgb, instances = [torch.zeros(200, 3)], [torch.full((200,), NONE)]
    for place in torch.randperm(4, generator=rng).tolist():
        index = len(rgb) - 1
        for half in (0.0, 0.2):
            corner = (float(place) + 0.2, 0.3 + half, 0.1)
            xyz.append(block(corner, (corner[0] + 0.4, corner[1] + 0.2, 0.5), POINTS))
        rgb.append(torch.tensor([*COLORS.values()][index]).expand(2 * POINTS, 3))
        instances.append(torch.full((2 * POINTS,), index + 1))
    superpoints = torch.arange(9).repeat_interleave(torch.tensor([len(one) for one in xyz]))
    points, labels = torch.cat(xyz), torch.cat(instances)
    return Cloud(points - points.mean(dim=0), torch.cat(rgb), superpoints, labels, labels)


def write_rooms(root: Path) -> None:
    """A dataset folder with prepared rooms and DetailRefer's files about them."""
    from detailbase.scans.clouds import SUFFIX, save_cloud

    names, number = list(COLORS), 0
    for split, count in SPLITS.items():
        records = []
        for _ in range(count):
            scene_id, number = f"scene{number:04d}_00", number + 1
            folder = "train" if split == "train" else "val"
            (root / "scannetv2" / folder).mkdir(parents=True, exist_ok=True)
            save_cloud(make_room(number), root / "scannetv2" / folder / f"{scene_id}{SUFFIX}")
            for index, color in enumerate(names):
                other = (index + 1) % len(names)
                records.append(
                    {
                        "scene_id": scene_id,
                        "object_id": str(index + 1),
                        "ann_id": "0",
                        # Hashed words do not know their neighbours: colours are the nouns.
                        "token": ["the", color, "stands", "beside", "the", names[other]],
                        "t2o": {"1": [index + 1], "5": [other + 1]},
                    }
                )
        path = root / "DetailRefer" / f"DetailRefer_{split}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(records))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that share so little work only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a dataset of five rooms; not to be written to."""
    root = tmp_path_factory.mktemp("rooms")
    write_rooms(root)
    return root


@pytest.fixture(scope="session")
def config_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config file that changes nothing."""
    path = tmp_path_factory.mktemp("configs") / "detailbase" / "boxes.yaml"
    path.parent.mkdir()
    path.touch()
    return path


@pytest.fixture(scope="session")
def trained(rooms: Path, config_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run on the rooms; not to be written to."""
    from detailbase.train import main

    logging.getLogger("detailbase").setLevel(logging.INFO)  # as the programs do
    out = tmp_path_factory.mktemp("trained") / "run"
    main([*("--config", str(config_path), "--data.root", str(rooms), "--work_dir", str(out)),
          *SMALL, *("--epochs", "30", "--train.lr", "3e-3"),
          *("--data.augment.jitter", "0", "--data.augment.elastic", "0")])  # fmt: skip
    return out


@pytest.fixture
def says(monkeypatch, capsys):
    """Runs a program that must fail; returns its message."""
    from refer3d.runs.errors import run

    monkeypatch.syspath_prepend(str(ROOT))

    def call(program: str, *argv: object) -> str:
        spec = importlib.util.spec_from_file_location(f"{program}_script", ROOT / f"{program}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, "argv", [f"{program}.py", *map(str, argv)])
        with pytest.raises(SystemExit) as ended:
            run(module.main)
        assert ended.value.code == 2
        # Messages of the parser stand in boxes: their lines are joined again.
        text = " ".join(capsys.readouterr().err.replace("│", " ").split())
        assert "Traceback" not in text
        return text

    return call
