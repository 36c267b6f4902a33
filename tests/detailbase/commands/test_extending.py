"""The examples of docs/extending.md in one run: a backbone, a dataset and a metric."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from detailbase import Referrer
from detailbase.config import NetworkConfig
from detailbase.descriptions.datasets import DATASETS
from detailbase.evaluate import main as eval_main
from detailbase.inference.metrics import METRICS
from detailbase.model.build import BACKBONES, build
from detailbase.train import main as train_main
from refer3d.runs.errors import InputError

from .conftest import COLORS, SMALL

PAGE = Path(__file__).parents[3] / "docs" / "extending.md"


@pytest.fixture
def extended():
    tables = (BACKBONES, DATASETS, METRICS)
    before = [dict(table) for table in tables]
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    examples = [block for block in blocks if "detailbase" in block]
    assert len(examples) == 3
    for block in examples:
        exec(compile(block, PAGE.name, "exec"), {})
    yield
    for table, old in zip(tables, before, strict=True):
        table.clear()
        table.update(old)


def test_a_backbone_a_dataset_and_a_metric(extended, rooms, config_path, tmp_path, capsys):
    root, out = shutil.copytree(rooms, tmp_path / "rooms"), tmp_path / "run"
    (root / "ReferIt3D").mkdir()
    for split, scene in (("train", 0), ("val", 4)):
        records = [
            {"scan_id": f"scene000{scene}_00", "assignmentid": index, "target_id": index + 1,
             "utterance": f"The {color} box."}
            for index, color in enumerate(COLORS)
        ]  # fmt: skip
        (root / "ReferIt3D" / f"nr3d_{split}.json").write_text(json.dumps(records))
    options = ["--config", str(config_path), "--data.root", str(root), "--work_dir", str(out)]
    options += ["--data.train_on", "detailrefer", "nr3d", "--data.dataset", "nr3d", *SMALL]
    train_main([*options, "--network.backbone", "points", "--epochs", "2"])
    weights = torch.load(out / "best.pth", weights_only=True)["model"]
    assert "backbone.layers.0.linear1.weight" in weights

    options = ["--config", str(out / "config.yaml"), "--split", "val", "--data.dataset", "nr3d"]
    eval_main(options)
    results = json.loads((out / "results_nr3d_val.json").read_text())
    assert results["metrics"]["phrases"] == 4
    assert 0 <= results["metrics"]["precision"] <= 1
    assert "precision" in capsys.readouterr().out
    assert Referrer.load(out / "best.pth").network.backbone.width == 8


@torch.no_grad()
def test_the_backbone_keeps_scenes_apart(extended, rng):
    backbone = build(NetworkConfig(backbone="points", channels=(8, 16)), text_dim=4).backbone.eval()
    voxels = torch.randint(0, 20, (400, 4), generator=rng).unique(dim=0)
    voxels[:, 0] = torch.arange(len(voxels)) >= 150
    features = torch.randn(len(voxels), 6, generator=rng)
    # float32 of other windows' products; measured 1e-6.
    assert_close(
        backbone(features, voxels)[:150], backbone(features[:150], voxels[:150]), atol=1e-5, rtol=0
    )


def test_an_unknown_backbone_is_an_error():
    with pytest.raises(InputError, match=r"--network\.backbone: .*unet.*'none'.*name"):
        build(NetworkConfig(backbone="none"), text_dim=4)
