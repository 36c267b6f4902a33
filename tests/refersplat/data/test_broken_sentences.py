"""Wrong sentences, masks and options are refused before training."""

from __future__ import annotations

import re
import shutil

import pytest

from refersplat.config import DataConfig
from refersplat.data import load_scene


def case(name, breaks, says, options=None, binary=True):
    """What breaks a small scene, and what must be said about it, in this order."""
    return pytest.param(breaks, says, options or {}, binary, id=name)


def json_object(**changes):
    """Changes the first object of the second view; None takes the field out."""

    def breaks(small):
        content = small.read_json("frame_00002")
        entry = {**content["object"][0], **changes}
        content["object"][0] = {key: value for key, value in entry.items() if value is not None}
        small.write_json("frame_00002", content)

    return breaks


def two_candidates(small):
    json_object(segmentation=None)(small)
    path = small.path / "gt_mask/cup_frame_00002.png"
    shutil.copy(path, path.with_name("cup_frame_00002_a.png"))
    path.rename(path.with_name("cup_frame_00002_b.png"))


def two_json(small):
    shutil.copytree(small.path / "json", small.path / "json/train_json")


def strange_json_names(small):
    for index, path in enumerate(sorted((small.path / "json").iterdir())):
        path.rename(path.with_name(f"photo-{'abcd'[index]}.json"))


CASES = [
    # Sentences and masks
    case(
        "json is not json",
        lambda s: s.write_text("json/frame_00002.json", "{"),
        (r"frame_00002.json: is not JSON \(line 1",),
    ),
    case(
        "json is binary", lambda s: s.append("json/frame_00002.json", b"\xff"), ("not UTF-8 text",)
    ),
    case(
        "json is a list",
        lambda s: s.write_text("json/frame_00002.json", "[]"),
        ("expected an object, got",),
    ),
    case(
        "json without objects",
        lambda s: s.write_text("json/frame_00002.json", "{}"),
        ("the key 'object'",),
    ),
    case(
        "objects are a dict",
        lambda s: s.write_text("json/frame_00002.json", '{"object": {}}'),
        (r"frame_00002\.json: object: expected a list, got {}",),
    ),
    case(
        "object is a string",
        lambda s: s.write_text("json/frame_00002.json", '{"object": ["cup"]}'),
        (r"object\[0\]: expected an object, got 'cup'",),
    ),
    case(
        "no sentence field",
        json_object(sentence=None),
        (r"frame_00002\.json: object\[0\]: expected the key 'sentence'", "add it"),
    ),
    case(
        "sentence is a number",
        json_object(sentence=3),
        (r"object\[0\]: sentence: expected a list",),
    ),
    case(
        "number among sentences",
        json_object(sentence=["A cup.", 3]),
        (r"object\[0\]: sentence\[1\]: expected a string, got 3",),
    ),
    case("category is a number", json_object(category=3), ("category: expected a string, got 3",)),
    case(
        "neither mask nor category",
        json_object(segmentation=None, category=None),
        (r"object\[0\]: expected the key 'segmentation', got 'sentence'",),
    ),
    case(
        "missing mask",
        lambda s: s.remove("gt_mask/cup_frame_00002.png"),
        (
            r"frame_00002\.json: object\[0\]: .*'cup_frame_00002.png'",
            "gt_mask",
            "copy",
        ),
    ),
    case("no mask folder", lambda s: s.remove("gt_mask"), (r"object\[0\]: .*mask", "--data.masks")),
    case("several masks fit", two_candidates, ("several files", "_a.png, cup_", "'segmentation'")),
    case(
        "mask of another size",
        lambda s: s.write_image("gt_mask/cup_frame_00002.png", (20, 15)),
        (r"cup_frame_00002\.png: is 20x15 pixels", "40x30", r"object\[0\]", "draw"),
    ),
    case(
        "mask cut short",
        lambda s: s.cut("gt_mask/cup_frame_00002.png", 50),
        (r"cup_frame_00002\.png: cannot be read as an image", "again"),
    ),
    case(
        "two json of a view",
        two_json,
        ("frame_00001.json and", "'frame_00001'", "delete"),
    ),
    case(
        "no json is of a view",
        strange_json_names,
        ("json: .*frame_00001", "photo-a", "rename"),
    ),
    # Options
    *[
        case(
            f"-r {value}",
            lambda s: None,
            ("--data.resolution: .*-1", f"got {value}"),
            {"resolution": value},
        )
        for value in (0, -2)
    ],
    case(
        "-r 8 of 40x30",
        lambda s: None,
        ("5x4 pixels with -r 8", "smaller divisor"),
        {"resolution": 8},
    ),
    case(
        "cache", lambda s: None, ("--data.image_cache_gb: .*0", "got -1"), {"image_cache_gb": -1.0}
    ),
    case(
        "unknown test view",
        lambda s: None,
        ("--data.test_views: no view 'frame_0003x'", "did you mean 'frame_00003'"),
        {"eval": True, "test_views": ("frame_0003x",)},
    ),
    case(
        "unknown frame number",
        lambda s: None,
        ("--data.test_views: no view '77' among 4", "frame_00001 … frame_00004"),
        {"eval": True, "test_views": ("77",)},
    ),
    case(
        "unknown view in meta.json",
        lambda s: (s.path / "meta.json").write_text('{"test_views": [9]}'),
        (r"meta\.json: test_views: no view '9'",),
        {"eval": True},
    ),
    case(
        "meta.json of numbers and halves",
        lambda s: (s.path / "meta.json").write_text('{"test_views": [1, 2.5]}'),
        (r"meta\.json: test_views\[1\]: expected an integer, got 2.5",),
        {"eval": True},
    ),
    case(
        "all views test",
        lambda s: None,
        ("all 4 views are test views", "none is left for training", "--data.test_views"),
        {"eval": True, "test_views": ("1", "2", "3", "4")},
    ),
]


@pytest.mark.parametrize(("breaks", "says", "options", "binary"), CASES)
def test_says_what_is_wrong(make_scene, refusal, breaks, says, options, binary):
    small = make_scene().write(binary=binary)
    load_scene(DataConfig(scene=str(small.path)))
    breaks(small)
    message = refusal(small, **options)
    assert re.search(".*".join(says), message), message
    assert "\n" not in message
