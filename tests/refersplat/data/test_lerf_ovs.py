"""LERF-OVS's labels, alone and beside Ref-LERF's sentences."""

from __future__ import annotations

import json

import pytest
import torch

from refersplat.config import DataConfig
from refersplat.data import check, load_scene
from tests.errors import assert_names

CORNERS = [[2, 3], [9, 3], [9, 8], [2, 8]]
BOX = {"category": "old box", "group": 1, "segmentation": CORNERS, "bbox": [2, 3, 9, 8]}
OTHER_PART = {**BOX, "segmentation": [[x + 20.0, y] for x, y in CORNERS]}


@pytest.fixture
def write_label(small_scene):
    """Writes a label file of the scene; returns its path."""

    def write(*objects, name="frame_00001", width=40, height=30):
        path = small_scene.path.parent / "label" / small_scene.path.name / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        info = {"name": f"{name}.jpg", "width": width, "height": height}
        path.write_text(json.dumps({"info": info, "objects": objects}))
        return path

    return write


def load(small, **options):
    return load_scene(DataConfig(scene=str(small.path), eval=True, **options))


def test_polygons_of_a_category_are_one_object(small_scene, write_label):
    small_scene.remove("json")
    write_label(BOX, OTHER_PART)
    write_label(BOX, name="frame_00099")
    scene = load(small_scene)
    assert scene.dataset.name == "LERF-OVS"
    assert [view.name for view in scene.test] == ["frame_00001"]
    (box,) = scene.test[0].objects
    assert (box.category, box.sentences) == ("old box", ("old box",))
    expected = torch.zeros(30, 40, dtype=torch.bool)
    expected[3:9, 2:10] = expected[3:9, 22:30] = True
    assert torch.equal(box.mask(), expected)
    assert box.boxes() == [(2, 3, 9, 8), (22, 3, 29, 8)]
    assert not any(view.objects for view in scene.train)
    assert any("frame_00099.json (1): no view of that name" in text for text in scene.warnings)
    assert any("json: no such folder" in text for text in scene.warnings)
    half = load(small_scene, resolution=2).test[0].objects[0]
    assert half.mask().shape == (15, 20)


def test_all_label_files_without_a_view_are_counted(small_scene, write_label):
    for number in (1, 96, 97, 98, 99):
        write_label(BOX, name=f"frame_{number:05d}")
    (warning,) = [w for w in load(small_scene, dataset="lerf_ovs").warnings if "label" in w]
    assert_names(warning, "frame_00096.json, frame_00097.json, frame_00098.json, …", "4")


def test_other_views_train_with_the_sentences_of_ref_lerf(make_scene):
    names = [f"frame_{number:05d}.png" for number in (41, 83, 97, 100, 146, 179)]
    small = make_scene("figurines", num_views=6, names=names).write()
    path = small.path.parent / "label" / "figurines" / "frame_00041.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"info": {"width": 40, "height": 30}, "objects": [BOX]}))
    # Ref-LERF's test views, whose masks are true, do not train.
    (small.path / "gt_mask/cup_frame_00083.png").unlink()
    scene = load(small, dataset="lerf_ovs")
    assert {view.name: len(view.objects) for view in scene.views} == {
        "frame_00041": 1,
        "frame_00083": 0,
        "frame_00097": 0,
        "frame_00100": 2,
        "frame_00146": 0,
        "frame_00179": 0,
    }
    assert [view.name for view in scene.test] == ["frame_00041"]
    assert scene.test[0].objects[0].category == "old box"


def test_ref_lerf_is_detected_first(small_scene, write_label, capsys):
    write_label(BOX)
    assert load(small_scene).dataset.name == "Ref-LERF"
    check.main([str(small_scene.path), "--dataset", "lerf_ovs"])
    assert "as in LERF-OVS" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("objects", "words"),
    [
        (["box"], ("objects[0]", "an object", "'box'")),
        ([{"segmentation": CORNERS}], ("objects[0]", "'category'", "add it")),
        ([{**BOX, "category": " "}], ("objects[0]", "a category", "correct")),
        ([{**BOX, "segmentation": CORNERS[:2]}], ("objects[0]", "at least 3", "correct")),
        (
            [BOX, {**BOX, "segmentation": [[1, 2], [3], [4, 5]]}],
            ("segmentation[1]", "[x, y]", "[3]"),
        ),
        (
            [{**BOX, "segmentation": [[1, 2], [3, "4"], [4, 5]]}],
            ("segmentation[1][1]", "a number", "'4'"),
        ),
    ],
)
def test_broken_labels_are_refused(small_scene, write_label, refusal, objects, words):
    path = write_label(*objects)
    assert_names(refusal(small_scene, dataset="lerf_ovs"), str(path), *words)


def test_labels_of_another_photo_are_refused(small_scene, write_label, refusal):
    write_label(BOX, width=80)
    message = refusal(small_scene, dataset="lerf_ovs", eval=True)
    assert_names(message, "frame_00001.json: old box", "40x30", "80x30", "draw")


def test_labels_of_other_views_never_train(small_scene, write_label):
    write_label(BOX, name="frame_00001")
    write_label(BOX, name="frame_00002")
    scene = load(small_scene, dataset="lerf_ovs", test_views=("frame_00001",))
    assert [view.name for view in scene.test] == ["frame_00001"]
    assert all(item.sentences != ("old box",) for view in scene.train for item in view.objects)


def test_a_scene_without_labels_is_refused(small_scene, refusal):
    message = refusal(small_scene, dataset="lerf_ovs")
    assert_names(message, "label/scene", "frame_*.json", "copy")


def test_an_unknown_dataset_is_refused(small_scene, refusal):
    message = refusal(small_scene, dataset="lerf")
    assert_names(message, "--data.dataset", "auto, ref_lerf, lerf_ovs", "'lerf'", "choose")
