"""Wrong sentences, masks and options are refused before training."""

from __future__ import annotations

import shutil

import pytest

from tests.errors import assert_names

JSON = "json/frame_00002.json"
OBJECT = f"{JSON}: object[0]"
MASK = "gt_mask/cup_frame_00002.png"


def content(text: str):
    return lambda small: small.write_text(JSON, text)


def json_object(**changes):
    """Changes the first object of the second view; None removes the field."""

    def breaks(small):
        content = small.read_json("frame_00002")
        entry = {**content["object"][0], **changes}
        content["object"][0] = {key: value for key, value in entry.items() if value is not None}
        small.write_json("frame_00002", content)

    return breaks


def nothing_and_something(small):
    content = small.read_json("frame_00002")
    content["object"].append({"segmentation": None, "sentence": "The cup on the table."})
    small.write_json("frame_00002", content)


def two_candidates(small):
    json_object(segmentation=None)(small)
    path = small.path / MASK
    shutil.copy(path, path.with_name("cup_frame_00002_a.png"))
    path.rename(path.with_name("cup_frame_00002_b.png"))


def two_json(small):
    shutil.copytree(small.path / "json", small.path / "json/train_json")


def other_json_names(small):
    for index, path in enumerate(sorted((small.path / "json").iterdir())):
        path.rename(path.with_name(f"photo-{'abcd'[index]}.json"))


CASES = {
    "json is not json": (content("{"), JSON, "line 1", "copy"),
    "json is binary": (lambda s: s.append(JSON, b"\xff"), JSON, "UTF-8"),
    "json is a list": (content("[]"), JSON, "an object"),
    "json without objects": (content("{}"), JSON, "'object'", "add it"),
    "objects are a dict": (content('{"object": {}}'), f"{JSON}: object", "a list", "correct"),
    "object is a string": (content('{"object": ["cup"]}'), OBJECT, "an object", "'cup'", "correct"),
    "no sentence field": (json_object(sentence=None), OBJECT, "'sentence'", "add it"),
    "sentence is a number": (json_object(sentence=3), f"{OBJECT}: sentence", "a list", "correct"),
    "number among sentences": (
        json_object(sentence=["A cup.", 3]),
        *(f"{OBJECT}: sentence[1]", "a string", "got 3", "correct"),
    ),
    "category is a number": (json_object(category=3), f"{OBJECT}: category", "a string", "got 3"),
    "neither mask nor category": (
        json_object(segmentation=None, category=None),
        *(OBJECT, "'segmentation'", "add it"),
    ),
    "sentence of nothing and something": (
        nothing_and_something,
        *(f"{JSON}: object[2]", "'The cup on the table.'", "object[0]", "delete"),
    ),
    "missing mask": (
        lambda s: s.remove(MASK),
        *(OBJECT, "'cup_frame_00002.png'", "gt_mask", "copy", "--data.masks"),
    ),
    "no mask folder": (lambda s: s.remove("gt_mask"), "object[0]", "gt_mask", "--data.masks"),
    "several masks fit": (
        two_candidates,
        *(OBJECT, "cup_frame_00002_a.png, cup_frame_00002_b.png", "'segmentation'"),
    ),
    "mask of another size": (
        lambda s: s.write_image(MASK, (20, 15)),
        *(MASK, "20x15", "40x30", OBJECT, "draw"),
    ),
    "mask cut short": (lambda s: s.cut(MASK, 50), MASK, "export it again"),
    "two json of a view": (two_json, "json/frame_00001.json", "'frame_00001'", "delete one"),
    "no json is of a view": (other_json_names, "json", "frame_00001", "photo-a.json", "rename"),
}
OPTIONS = {
    "resolution 0": ({"resolution": 0}, "--data.resolution", "-1", "got 0"),
    "resolution -2": ({"resolution": -2}, "--data.resolution", "-1", "got -2"),
    "tiny images": ({"resolution": 8}, "-r 8", "5x4", "choose"),
    "cache": ({"image_cache_gb": -1.0}, "--data.image_cache_gb", "0", "got -1.0"),
    "unknown test view": (
        {"test_views": ("frame_0003x",)},
        *("--data.test_views", "'frame_0003x'", "'frame_00003'"),
    ),
    "unknown frame number": (
        {"test_views": ("77",)},
        *("--data.test_views", "'77'", "frame_00001 … frame_00004"),
    ),
    "all views test": ({"test_views": ("1", "2", "3", "4")}, "scene", "4", "--data.test_views"),
}
META = {
    '["\\ud800"]': ("meta.json: test_views", r"'\ud800'", "give names or frame numbers"),
    "[9]": ("meta.json: test_views", "'9'", "give names or frame numbers"),
    "[1, 2.5]": ("meta.json: test_views[1]", "an integer", "got 2.5", "correct"),
}


@pytest.mark.parametrize("name", CASES)
def test_broken_sentences_are_refused(small_scene, refusal, name):
    breaks, *words = CASES[name]
    breaks(small_scene)
    assert_names(refusal(small_scene), *words)


@pytest.mark.parametrize("name", OPTIONS)
def test_wrong_options_are_refused(small_scene, refusal, name):
    options, *words = OPTIONS[name]
    assert_names(refusal(small_scene, eval="test_views" in options, **options), *words)


@pytest.mark.parametrize("views", META)
def test_wrong_test_views_of_a_scene_are_refused(small_scene, refusal, views):
    small_scene.write_text("meta.json", f'{{"test_views": {views}}}')
    assert_names(refusal(small_scene, eval=True), *META[views])
