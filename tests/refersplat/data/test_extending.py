"""The examples of docs/extending.md: a referring dataset, a camera model and a metric."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from refersplat.config import DataConfig
from refersplat.data import load_scene
from refersplat.data.lens import MODELS
from refersplat.data.referring import DATASETS
from refersplat.metrics import METRICS, mean_scores, score

PAGE = Path(__file__).parents[3] / "docs" / "extending.md"


def run_example(heading: str) -> None:
    section = PAGE.read_text(encoding="utf-8").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    (block,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    exec(compile(block, PAGE.name, "exec"), {})


def test_a_referring_dataset(small_scene, monkeypatch):
    small_scene.remove("json")
    prompts = small_scene.path / "test_mask" / "3"
    prompts.mkdir(parents=True)
    (small_scene.path / "gt_mask/cup_frame_00003.png").rename(prompts / "old cup.png")
    monkeypatch.setattr("refersplat.data.referring.DATASETS", list(DATASETS))
    run_example("A referring dataset of refersplat")
    scene = load_scene(DataConfig(scene=str(small_scene.path)))
    assert scene.dataset.key == "lerf_mask"
    assert [len(view.objects) for view in scene.views] == [0, 0, 1, 0]
    (cup,) = scene.views[2].objects
    assert (cup.category, cup.sentences) == ("old cup", ("old cup",))
    assert cup.mask()[:, :20].all()
    assert cup.boxes() == [(0, 0, 19, 29)]


def test_a_camera_model(make_scene, monkeypatch):
    monkeypatch.setitem(MODELS, "FOV", None)  # so that it is removed at the end
    del MODELS["FOV"]
    pycolmap = pytest.importorskip("pycolmap")
    values = (50.0, 48.0, 20.5, 14.5, 0.7)
    small = make_scene(model="FOV", params=values)
    with pytest.raises(KeyError):
        small.write()
    run_example("A camera model")
    view = load_scene(DataConfig(scene=str(small.write().path))).views[0]
    camera = pycolmap.Camera(model="FOV", width=40, height=30, params=values)
    rays = np.random.default_rng(0).uniform(-0.3, 0.3, (20, 2))
    expected = camera.img_from_cam(np.pad(rays, ((0, 0), (0, 1)), constant_values=1))
    np.testing.assert_allclose(np.stack(view.lens.project(*rays.T), axis=1), expected, atol=1e-9)
    assert view.camera.fx != view.lens.fx


def test_a_metric(monkeypatch):
    monkeypatch.setattr("refersplat.metrics.METRICS", dict(METRICS))
    run_example("A metric of refersplat")
    scores = score(torch.tensor([[True, True]]), torch.tensor([[True, False]]))
    assert mean_scores([scores])["precision"] == 0.5
