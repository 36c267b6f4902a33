"""Descriptions of three datasets, and what is said of broken ones."""

import logging
import re

import pytest

from detailbase.descriptions.datasets import DATASETS, read_references
from detailbase.descriptions.references import Phrase, Reference, split_words
from refer3d.runs.errors import InputError

SAID = {"scene_id": "scene0000_00", "ann_id": "3", "object_id": "7"}
WORDS = ["two", "chairs", "at", "the", "desk", "."]
DETAIL = {**SAID, "token": WORDS, "t2o": {"4": [9], "1": [5, 2]}}
SINGLE = {**SAID, "token": WORDS}
MULTI = {
    "scene_id": "scene0000_00",
    "ann_id": 0,
    "object_ids": [3, 1],
    "description": "Two chairs, at the desk.",
    "eval_type": "mt",
}


def test_detailrefer_names_objects_of_words(write_json):
    (found,) = read_references(write_json([DETAIL]), DATASETS["detailrefer"])
    phrases = (Phrase("1", (2, 5)), Phrase("4", (9,)))
    assert found == Reference("scene0000_00", "3", tuple(WORDS), phrases, object_id="7")
    assert [phrase.query for phrase in found.phrases] == [2, 5]


@pytest.mark.parametrize("dataset", ["detailrefer", "scanrefer"])
def test_scanrefer_names_one_object(write_json, dataset):
    (found,) = read_references(write_json([SINGLE]), DATASETS[dataset])
    assert found.phrases == (Phrase("-1", (7,)),)
    assert found.phrases[0].query == 0
    assert found.object_id == "7"


def test_multi3drefer_names_any_number(write_json):
    nothing = {**MULTI, "object_ids": [], "eval_type": "zt_w_d"}
    found = read_references(write_json([MULTI, nothing]), DATASETS["multi3drefer"])
    assert [one.phrases for one in found] == [(Phrase("-1", (1, 3)),), (Phrase("-1", ()),)]
    assert [one.kinds for one in found] == [("multiple targets",), ("zero targets", "zt_w_d")]
    assert found[0].words == ("two", "chairs", ",", "at", "the", "desk", ".")


def test_the_whole_may_be_named_beside_words(write_json):
    record = {**DETAIL, "t2o": {"4": [9], "-1": [5], "0": []}}
    (found,) = read_references(write_json([record]), DATASETS["detailrefer"])
    assert found.phrases == (Phrase("-1", (5,)), Phrase("0", ()), Phrase("4", (9,)))


def test_ids_may_be_text_or_come_twice(write_json):
    record = {**DETAIL, "ann_id": 3, "object_id": 7, "t2o": {"1": ["5", 2, 5]}}
    (found,) = read_references(write_json([record]), DATASETS["detailrefer"])
    assert (found.ann_id, found.object_id) == ("3", "7")
    assert found.phrases == (Phrase("1", (2, 5)),)


def test_equal_numbers_stay_two_descriptions(write_json):
    """ScanRefer numbers the descriptions of each object anew."""
    found = read_references(
        write_json([SINGLE, {**SINGLE, "object_id": "8"}]), DATASETS["scanrefer"]
    )
    assert [one.object_id for one in found] == ["7", "8"]


def test_what_names_nothing_is_left_out(write_json, caplog):
    path = write_json([DETAIL, {**DETAIL, "t2o": {}}])
    with caplog.at_level(logging.WARNING):
        assert len(read_references(path, DATASETS["detailrefer"])) == 1
    assert "1 of 2 descriptions name nothing and are left out" in caplog.text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The TV's on, there.", ["the", "tv's", "on", ",", "there", "."]),
        ("an L-shaped desk;no chair", ["an", "l-shaped", "desk", ";", "no", "chair"]),
        ("  ", []),
    ],
)
def test_splits_words(text, words):
    assert split_words(text) == words


def changed(record, **fields):
    return [record, {key: value for key, value in {**record, **fields}.items() if value != "gone"}]


# A file's content, whose it is, and what must be said.
BROKEN = {
    "no list": ({"a": 1}, "detailrefer", r"expected a list of descriptions, got \{'a': 1\}; copy"),
    "empty": ([], "detailrefer", r"expected a list of descriptions, got \[\]; copy"),
    "nothing named": ([{**DETAIL, "t2o": {}}], "detailrefer", "none of its .* names an object"),
    "no record": ([DETAIL, 3], "detailrefer", "record 1: the record: expected an object .*got 3"),
    "no scene": (changed(DETAIL, scene_id="gone"), "detailrefer", "scene_id: .* got None"),
    "empty scene": (changed(DETAIL, scene_id=""), "detailrefer", "scene_id: .* number, got ''"),
    "no annotation": (changed(SINGLE, ann_id="gone"), "scanrefer", "ann_id: .*got None"),
    "annotation a truth": (changed(SINGLE, ann_id=True), "scanrefer", "ann_id: .*got True"),
    "object a list": (changed(DETAIL, object_id=[1]), "detailrefer", r"object_id: .*got \[1\]"),
    "no object": (changed(SINGLE, object_id="gone"), "scanrefer", r"object_id: .*got \[None\]"),
    "object a name": (changed(SINGLE, object_id="desk"), "scanrefer", r"got \['desk'\]"),
    "no token": (changed(DETAIL, token="gone"), "detailrefer", "token: .*list of words, got None"),
    "text as token": (changed(DETAIL, token="a b"), "detailrefer", "token: .*words, got 'a b'"),
    "no words": (changed(SINGLE, token=[]), "scanrefer", r"token: .*words, got \[\]"),
    "number a word": (changed(SINGLE, token=["a", 3]), "scanrefer", r"got \['a', 3\]"),
    "empty description": (changed(MULTI, description=""), "multi3drefer", r"token: .*got \[\]"),
    "t2o a list": (changed(DETAIL, t2o=[[1, 2]]), "detailrefer", r"t2o: .*word, got \[\[1, 2\]\]"),
    "t2o null": (changed(DETAIL, t2o=None), "detailrefer", "t2o: expected lists .*got None"),
    "behind the end": (
        changed(DETAIL, t2o={"6": [1]}),
        "detailrefer",
        r"t2o\['6'\]: expected a word's index below 6, or -1, got '6'",
    ),
    "before the start": (changed(DETAIL, t2o={"-2": [1]}), "detailrefer", r"t2o\['-2'\]: .*index"),
    "key twice": (changed(DETAIL, t2o={"1": [1], "01": [2]}), "detailrefer", "the word 1 once"),
    "key a word": (changed(DETAIL, t2o={"desk": [1]}), "detailrefer", r"t2o\['desk'\]: .*index"),
    "key a fraction": (changed(DETAIL, t2o={"1.0": [1]}), "detailrefer", r"t2o\['1.0'\]: .*index"),
    "id no list": (changed(DETAIL, t2o={"1": 5}), "detailrefer", r"t2o\['1'\]: .*ids, got 5;"),
    "id below 0": (changed(DETAIL, t2o={"1": [-5]}), "detailrefer", r"object ids, got \[-5\]"),
    "id a fraction": (changed(DETAIL, t2o={"1": [1.5]}), "detailrefer", r"ids, got \[1.5\]"),
    "id odd digits": (changed(DETAIL, t2o={"1": ["²"]}), "detailrefer", r"ids, got \['²'\]"),
    "id huge": (changed(DETAIL, t2o={"1": [2**40]}), "detailrefer", r"ids, got \[1099511627776\]"),
    "no ids": (changed(MULTI, object_ids="gone"), "multi3drefer", "object_ids: .*got None"),
    "kind a list": (changed(MULTI, eval_type=[]), "multi3drefer", r"eval_type: .*got \[\]"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_says_what_is_wrong(write_json, name):
    content, dataset, says = BROKEN[name]
    path = write_json(content)
    with pytest.raises(InputError) as caught:
        read_references(path, DATASETS[dataset])
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert re.search(says, message), message
    if "record" in message:
        assert "record 1: " in message
        assert message.endswith("; correct the record or take it out")


@pytest.mark.parametrize("content", [b'[{"scene_id": ', b"\xff\xfe", b"[" * 100_000])
def test_no_json_is_refused(tmp_path, content):
    path = tmp_path / "DetailRefer_train.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"train.json: is not JSON .*; copy it again"):
        read_references(path, DATASETS["detailrefer"])


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"absent.json: no such file"):
        read_references(tmp_path / "absent.json", DATASETS["scanrefer"])
