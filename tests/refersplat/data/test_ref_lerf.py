"""Sentences and masks in the ways in which Ref-LERF circulates; splits."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
import torch

from refer3d.runs.errors import InputError
from refer3d.runs.files import atomic_write
from refersplat.config import DataConfig
from refersplat.data import load_scene, ref_lerf
from refersplat.data.names import ViewNames
from refersplat.data.ref_lerf import write
from tests.errors import raises


def load(small, **options):
    return load_scene(DataConfig(scene=str(small.path), **options))


def mask_path(view, index=0):
    return view.objects[index].annotation.mask.path


def test_objects_with_sentences_and_masks(small_scene):
    scene = load(small_scene)
    assert scene.warnings == []
    for view in scene.views:
        cup, bowl = view.objects
        assert cup.category == "cup"
        assert cup.sentences == ("The cup on the table.", "A thing: the cup.")
        assert mask_path(view).name == f"cup_{view.name}.png"
        assert cup.mask()[:, :20].all()
        assert torch.equal(bowl.mask(), ~cup.mask())
        assert cup.amodal_mask() is None


def rename_masks(small, name):
    for view in small.names:
        stem = view[:-4]
        for category in ("cup", "bowl"):
            path = small.path / "gt_mask" / name.format(category=category, view=stem)
            path.parent.mkdir(exist_ok=True)
            (small.path / "gt_mask" / f"{category}_{stem}.png").rename(path)


@pytest.mark.parametrize(
    "name",
    [
        "{category}_{view}.png",
        "{view}/{category}.png",
        "{view}/{category}_{view}.png",
        "{category}_{view}_sam.png",
    ],
)
@pytest.mark.parametrize("named_in_json", [True, False])
def test_names_of_masks(small_scene, name, named_in_json):
    rename_masks(small_scene, name)
    for view in small_scene.names:
        content = small_scene.read_json(view[:-4])
        for entry in content["object"]:
            entry["segmentation"] = "no such.png"
            if not named_in_json:
                del entry["segmentation"]
        small_scene.write_json(view[:-4], content)
    view = load(small_scene).views[1]
    expected = name.format(category="cup", view=view.name)
    assert mask_path(view) == small_scene.path / "gt_mask" / expected


def test_one_mask_per_category(make_scene):
    small = make_scene(num_views=1).write()
    (small.path / "gt_mask/cup_frame_00001.png").rename(small.path / "gt_mask/cup.png")
    assert mask_path(load(small).views[0]).name == "cup.png"


def test_a_mask_of_several_views_is_mentioned(small_scene):
    for view in small_scene.names:
        (small_scene.path / "gt_mask" / f"cup_{view}").rename(small_scene.path / "gt_mask/cup.png")
    assert any("cup.png: is the mask of 4 views" in text for text in load(small_scene).warnings)


@pytest.mark.parametrize("moved", ["all", "some"])
def test_masks_beside_gt_mask(small_scene, moved):
    (small_scene.path / "mask").mkdir()
    for path in list((small_scene.path / "gt_mask").iterdir()):
        if moved == "all" or "00002" in path.name:
            path.rename(small_scene.path / "mask" / path.name)
    views = load(small_scene).views
    assert mask_path(views[1]).parent.name == "mask"
    assert mask_path(views[0]).parent.name == ("mask" if moved == "all" else "gt_mask")


def test_numbered_images_find_named_sentences(make_scene):
    names = [f"{number:02d}.png" for number in (1, 2, 3, 12)]
    small = make_scene(names=names).write()
    for name in names:
        path = small.path / "json" / f"{name[:-4]}.json"
        path.rename(path.with_name(f"frame_{int(name[:-4]):05d}.json"))
    scene = load(small, eval=True, test_views=("frame_00012",))
    assert all(len(view.objects) == 2 for view in scene.views)
    assert [view.name for view in scene.test] == ["12"]


def test_sentences_of_nested_images(make_scene):
    small = make_scene(num_views=2, names=["left/1.png", "right/1.png"]).write()
    shutil.rmtree(small.path / "json")
    for side in ("left", "right"):
        entry = {"category": "cup", "segmentation": "cup_1.png", "sentence": [f"{side} cup"]}
        small.write_json(f"{side}/1", {"object": [entry]})
    assert [v.objects[0].sentences for v in load(small).views] == [("left cup",), ("right cup",)]


def test_one_sentence_needs_no_list_and_no_category(small_scene):
    entry = {"segmentation": "cup_frame_00001.png", "sentence": "A cup."}
    small_scene.write_json("frame_00001", {"object": [entry]})
    (cup,) = load(small_scene).views[0].objects
    assert (cup.category, cup.sentences) == (None, ("A cup.",))


def test_a_sentence_may_mean_nothing_in_a_view(small_scene):
    content = small_scene.read_json("frame_00001")
    both = "The two things."
    for entry in content["object"]:
        entry["sentence"].append(both)
    nothing = {"category": "cup", "segmentation": None, "sentence": "A second cup."}
    content["object"].append(nothing)  # a mask of that category exists, but is not meant
    small_scene.write_json("frame_00001", content)
    cup, bowl, nothing = load(small_scene).views[0].objects
    assert [item.is_nothing for item in (cup, bowl, nothing)] == [False, False, True]
    assert nothing.sentences == ("A second cup.",)
    assert nothing.mask().shape == cup.mask().shape
    assert not nothing.mask().any()
    assert both in cup.sentences
    assert both in bowl.sentences


def test_whole_silhouettes(small_scene):
    shutil.copytree(small_scene.path / "gt_mask", small_scene.path / "gt_mask_amodal")
    (small_scene.path / "gt_mask_amodal/bowl_frame_00001.png").unlink()
    cup, bowl = load(small_scene).views[0].objects
    assert torch.equal(cup.amodal_mask(), cup.mask())
    assert bowl.amodal_mask() is None


def edit_json(small, stem, change):
    content = small.read_json(stem)
    change(content["object"])
    small.write_json(stem, content)


def drop_sentences(objects):
    objects[0]["sentence"] = ["  "]


def repeat_mask(objects):
    objects.append({**objects[0], "sentence": ["A thing: the cup.", "Another."]})


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        (drop_sentences, r"frame_00002.json: object\[0\]: cup has no sentence, left out"),
        (repeat_mask, r"cup_frame_00002.png is listed twice, its sentences are joined"),
    ],
)
def test_oddities_are_mentioned(small_scene, change, warning):
    edit_json(small_scene, "frame_00002", change)
    scene = load(small_scene)
    (text,) = scene.warnings
    assert re.search(warning, text)
    sentences = [obj.sentences for obj in scene.views[1].objects]
    if change is repeat_mask:
        assert sentences[0] == ("The cup on the table.", "A thing: the cup.", "Another.")
    else:
        assert len(sentences) == 1


def test_views_without_sentences_are_mentioned(small_scene):
    (small_scene.path / "json/frame_00003.json").unlink()
    small_scene.write_json("frame_00099", {"object": []})
    scene = load(small_scene)
    assert scene.views[2].objects == ()
    assert any("1 of 4 views without json: frame_00003" in text for text in scene.warnings)
    assert any("frame_00099.json: no view of that name" in text for text in scene.warnings)


def test_pseudo_masks_may_miss_objects(small_scene):
    shutil.copytree(small_scene.path / "gt_mask", small_scene.path / "sam")
    (small_scene.path / "sam/cup_frame_00002.png").unlink()
    scene = load(small_scene, masks="sam", eval=True)
    assert [len(view.objects) for view in scene.views] == [2, 1, 2, 2]
    assert any("no mask of 1 objects" in text for text in scene.warnings)
    assert mask_path(scene.train[0]).parent.name == "sam"
    assert mask_path(scene.test[0]).parent.name == "gt_mask"  # tests see true masks


def names_of(views):
    return [view.name for view in views]


def test_all_views_train_without_eval(small_scene):
    (small_scene.path / "meta.json").write_text('{"test_views": [2]}')
    scene = load(small_scene, test_views=("1",))
    assert (len(scene.train), scene.test) == (4, [])
    assert any("no effect without --eval" in text for text in scene.warnings)


@pytest.mark.parametrize("name", ["frame_00003", "frame_00003.png", "3", "00003", 3])
def test_option_names_test_views(small_scene, name):
    (small_scene.path / "meta.json").write_text('{"test_views": [2]}')
    scene = load(small_scene, eval=True, test_views=(name,))
    assert names_of(scene.test) == ["frame_00003"]
    assert names_of(scene.train) == ["frame_00001", "frame_00002", "frame_00004"]


@pytest.mark.parametrize("listed", ["[2, 4]", '["frame_00002", "4"]'])
def test_meta_json_names_test_views(small_scene, listed):
    (small_scene.path / "meta.json").write_text(f'{{"test_views": {listed}}}')
    assert names_of(load(small_scene, eval=True).test) == ["frame_00002", "frame_00004"]


def test_folder_of_test_json_names_test_views(small_scene):
    for part, stems in (("train_json", "124"), ("test_json", "3")):
        (small_scene.path / "json" / part).mkdir()
        for stem in stems:
            path = small_scene.path / "json" / f"frame_0000{stem}.json"
            path.rename(path.parent / part / path.name)
    scene = load(small_scene, eval=True)
    assert names_of(scene.test) == ["frame_00003"]
    assert all(len(view.objects) == 2 for view in scene.views)


def test_test_json_wins_over_train_json(small_scene):
    entry = {"category": "cup", "segmentation": "cup_frame_00003.png", "sentence": ["Unseen."]}
    small_scene.write_json("frame_00003", {"object": [entry]}, folder="json/test_json")
    scene = load(small_scene, eval=True)
    assert scene.test[0].objects[0].sentences == ("Unseen.",)
    assert any("is of the same view" in text for text in scene.warnings)


def test_ref_lerf_scenes_have_their_lists(make_scene):
    names = [f"frame_{number:05d}.png" for number in (18, 19, 35, 66, 67, 105, 162)]
    small = make_scene("waldo_kitchen", num_views=7, names=names).write()
    scene = load(small, eval=True)
    assert names_of(scene.train) == ["frame_00018", "frame_00066"]
    assert scene.split == "Ref-LERF's list for waldo_kitchen"


def test_every_eighth_view_in_the_order_of_names(make_scene):
    names = [f"{number:02d}.png" for number in (9, 3, 1, 2, 4, 5, 6, 7, 8, 10)]
    small = make_scene(num_views=10, names=names).write_images().write_colmap()
    assert names_of(load(small, eval=True).test) == ["01", "09"]


def masks_of(small, value=True):
    return {name[:-4]: np.full((small.height, small.width), value) for name in small.names[:2]}


def test_a_written_object_joins_the_others(small_scene):
    scene = load(small_scene)
    names = ViewNames([view.name for view in scene.views], small_scene.names)
    write(small_scene.path, names, "table", ["The table."], masks_of(small_scene))
    for index, view in enumerate(load(small_scene).views):
        assert [item.category for item in view.objects] == ["cup", "bowl"] + ["table"] * (index < 2)
        assert all(item.mask().all() for item in view.objects[2:])
    write(small_scene.path, names, "cup", ["A cup."], masks_of(small_scene))  # in place of the old
    for index, view in enumerate(load(small_scene).views):
        cups = [item for item in view.objects if item.category == "cup"]
        assert [item.sentences for item in cups] == [("A cup.",)] * (index < 2)
    write(small_scene.path, names, "table", [], {})
    assert all(item.category != "table" for v in load(small_scene).views for item in v.objects)
    with raises(InputError, "category"):
        write(small_scene.path, names, "../cup", ["A cup."], masks_of(small_scene))


def test_fields_of_others_stay(small_scene):
    stem = small_scene.names[0][:-4]
    content = small_scene.read_json(stem) | {"info": {"by": "hand"}}
    content["object"][1]["score"] = 0.5
    small_scene.write_json(stem, content)
    names = ViewNames([name[:-4] for name in small_scene.names], small_scene.names)
    write(small_scene.path, names, "cup", ["A cup."], masks_of(small_scene))
    after = small_scene.read_json(stem)
    assert after["info"] == {"by": "hand"}
    assert after["object"][0]["score"] == 0.5


@pytest.mark.parametrize("files_before", range(4))
def test_a_scene_can_be_read_wherever_writing_stops(small_scene, monkeypatch, files_before):
    names = ViewNames([name[:-4] for name in small_scene.names], small_scene.names)
    written = []

    def stopping(path):
        if len(written) == files_before:
            raise OSError(28, "No space left on device", str(path))
        written.append(path)
        return atomic_write(path)

    monkeypatch.setattr(ref_lerf, "atomic_write", stopping)
    with pytest.raises(OSError, match="space"):
        write(small_scene.path, names, "table", ["The table."], masks_of(small_scene))
    views = load(small_scene).views
    assert all([i.category for i in v.objects][:2] == ["cup", "bowl"] for v in views)
    assert all(item.mask().all() for v in views for item in v.objects[2:])
