"""The examples of docs/extending.md: a referring dataset, a camera model and a metric."""

from __future__ import annotations

import json
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


@pytest.fixture
def lerf_ovs(small_scene, monkeypatch):
    """A scene with the polygons of a box in two parts, in its first view."""
    small_scene.remove("json")
    label = small_scene.path.parent / "label" / small_scene.path.name
    label.mkdir(parents=True)
    corners = [(2, 3), (9, 3), (9, 8), (2, 8)]
    parts = [{"category": "box", "segmentation": corners},
             {"category": "box", "segmentation": [(x + 20, y) for x, y in corners]}]  # fmt: skip
    content = {"info": {"width": 40, "height": 30}, "objects": parts}
    for name in ("frame_00001", "frame_00099"):  # the second has no photo
        (label / f"{name}.json").write_text(json.dumps(content))
    monkeypatch.setattr("refersplat.data.referring.DATASETS", list(DATASETS))
    run_example("A referring dataset of refersplat")
    return small_scene


def test_a_referring_dataset(lerf_ovs):
    scene = load_scene(DataConfig(scene=str(lerf_ovs.path)))
    assert [len(view.objects) for view in scene.views] == [1, 0, 0, 0]
    (box,) = scene.views[0].objects
    assert (box.category, box.sentences) == ("box", ("box",))
    expected = torch.zeros(30, 40, dtype=torch.bool)
    expected[3:9, 2:10] = expected[3:9, 22:30] = True
    assert torch.equal(box.mask(), expected)
    half = load_scene(DataConfig(scene=str(lerf_ovs.path), resolution=2)).views[0].objects[0]
    assert half.mask().shape == (15, 20)


def test_polygons_of_another_photo_are_refused(lerf_ovs, refusal):
    path = lerf_ovs.path.parent / "label" / "scene" / "frame_00001.json"
    path.write_text(path.read_text().replace("40", "80"))
    message = refusal(lerf_ovs)
    assert "frame_00001.json: box" in message
    assert "80x30" in message
    assert "40x30" in message


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
