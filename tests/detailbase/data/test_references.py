"""Descriptions of three datasets, and the errors of broken ones."""

import logging

import pytest

from detailbase.descriptions.datasets import DATASETS, read_references
from detailbase.descriptions.references import Phrase, Reference, split_words
from refer3d.runs.errors import InputError
from tests.detailbase.errors import assert_names

NAMES = {"scene_id": "scene0000_00", "ann_id": "3", "object_id": "7"}
WORDS = ["two", "chairs", "at", "the", "desk", "."]
DETAIL = {**NAMES, "token": WORDS, "t2o": {"4": [9], "1": [5, 2]}}
SINGLE = {**NAMES, "token": WORDS}
MULTI = {
    "scene_id": "scene0000_00",
    "ann_id": 0,
    "object_ids": [3, 1],
    "description": "Two chairs, at the desk.",
    "eval_type": "mt",
}


def test_detailrefer_names_objects_of_words(write_json):
    (reference,) = read_references(write_json([DETAIL]), DATASETS["detailrefer"])
    phrases = (Phrase("1", (2, 5)), Phrase("4", (9,)))
    assert reference == Reference("scene0000_00", "3", tuple(WORDS), phrases, object_id="7")
    assert [phrase.query for phrase in reference.phrases] == [2, 5]


@pytest.mark.parametrize("dataset", ["detailrefer", "scanrefer"])
def test_scanrefer_names_one_object(write_json, dataset):
    (reference,) = read_references(write_json([SINGLE]), DATASETS[dataset])
    assert reference.phrases == (Phrase("-1", (7,)),)
    assert reference.phrases[0].query == 0
    assert reference.object_id == "7"


def test_multi3drefer_names_any_number(write_json):
    nothing = {**MULTI, "object_ids": [], "eval_type": "zt_w_d"}
    references = read_references(write_json([MULTI, nothing]), DATASETS["multi3drefer"])
    assert [one.phrases for one in references] == [(Phrase("-1", (1, 3)),), (Phrase("-1", ()),)]
    assert [one.kinds for one in references] == [("multiple targets",), ("zero targets", "zt_w_d")]
    assert references[0].words == ("two", "chairs", ",", "at", "the", "desk", ".")


def test_the_whole_may_be_named_beside_words(write_json):
    record = {**DETAIL, "t2o": {"4": [9], "-1": [5], "0": []}}
    (reference,) = read_references(write_json([record]), DATASETS["detailrefer"])
    assert reference.phrases == (Phrase("-1", (5,)), Phrase("0", ()), Phrase("4", (9,)))


def test_ids_may_be_text_or_come_twice(write_json):
    record = {**DETAIL, "ann_id": 3, "object_id": 7, "t2o": {"1": ["5", 2, 5]}}
    (reference,) = read_references(write_json([record]), DATASETS["detailrefer"])
    assert (reference.ann_id, reference.object_id) == ("3", "7")
    assert reference.phrases == (Phrase("1", (2, 5)),)


def test_equal_numbers_stay_two_descriptions(write_json):
    """ScanRefer numbers the descriptions of each object anew."""
    references = read_references(
        write_json([SINGLE, {**SINGLE, "object_id": "8"}]), DATASETS["scanrefer"]
    )
    assert [one.object_id for one in references] == ["7", "8"]


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


DETAILREFER, SCANREFER, MULTI3DREFER = "detailrefer", "scanrefer", "multi3drefer"
# A file's content, its dataset, and the field and value that the error names.
BROKEN = {
    "no list": ({"a": 1}, DETAILREFER, "list", "{'a': 1}"),
    "empty": ([], DETAILREFER, "list", "[]"),
    "nothing named": ([{**DETAIL, "t2o": {}}], DETAILREFER, "object"),
    "no record": ([DETAIL, 3], DETAILREFER, "the record", "3"),
    "no scene": (changed(DETAIL, scene_id="gone"), DETAILREFER, "scene_id", "None"),
    "empty scene": (changed(DETAIL, scene_id=""), DETAILREFER, "scene_id", "''"),
    "no annotation": (changed(SINGLE, ann_id="gone"), SCANREFER, "ann_id", "None"),
    "annotation a truth": (changed(SINGLE, ann_id=True), SCANREFER, "ann_id", "True"),
    "object a list": (changed(DETAIL, object_id=[1]), DETAILREFER, "object_id", "[1]"),
    "no object": (changed(SINGLE, object_id="gone"), SCANREFER, "object_id", "[None]"),
    "object a name": (changed(SINGLE, object_id="desk"), SCANREFER, "object_id", "['desk']"),
    "no token": (changed(DETAIL, token="gone"), DETAILREFER, "token", "None"),
    "text as token": (changed(DETAIL, token="a b"), DETAILREFER, "token", "'a b'"),
    "no words": (changed(SINGLE, token=[]), SCANREFER, "token", "[]"),
    "number a word": (changed(SINGLE, token=["a", 3]), SCANREFER, "token", "['a', 3]"),
    "empty description": (changed(MULTI, description=""), MULTI3DREFER, "token", "[]"),
    "t2o a list": (changed(DETAIL, t2o=[[1, 2]]), DETAILREFER, "t2o", "[[1, 2]]"),
    "t2o null": (changed(DETAIL, t2o=None), DETAILREFER, "t2o", "None"),
    "behind the end": (changed(DETAIL, t2o={"6": [1]}), DETAILREFER, "t2o['6']", "below 6"),
    "before the start": (changed(DETAIL, t2o={"-2": [1]}), DETAILREFER, "t2o['-2']", "index"),
    "key twice": (changed(DETAIL, t2o={"1": [1], "01": [2]}), DETAILREFER, "t2o", "word 1 once"),
    "key a word": (changed(DETAIL, t2o={"desk": [1]}), DETAILREFER, "t2o['desk']", "index"),
    "key a fraction": (changed(DETAIL, t2o={"1.0": [1]}), DETAILREFER, "t2o['1.0']", "index"),
    "id no list": (changed(DETAIL, t2o={"1": 5}), DETAILREFER, "t2o['1']", "5"),
    "id below 0": (changed(DETAIL, t2o={"1": [-5]}), DETAILREFER, "t2o['1']", "[-5]"),
    "id a fraction": (changed(DETAIL, t2o={"1": [1.5]}), DETAILREFER, "t2o['1']", "[1.5]"),
    "id odd digits": (changed(DETAIL, t2o={"1": ["²"]}), DETAILREFER, "t2o['1']", "['²']"),
    "id huge": (changed(DETAIL, t2o={"1": [2**40]}), DETAILREFER, "t2o['1']", "[1099511627776]"),
    "no ids": (changed(MULTI, object_ids="gone"), MULTI3DREFER, "object_ids", "None"),
    "kind a list": (changed(MULTI, eval_type=[]), MULTI3DREFER, "eval_type", "[]"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_description_is_an_error(write_json, name):
    content, dataset, *parts = BROKEN[name]
    path = write_json(content)
    with pytest.raises(InputError) as caught:
        read_references(path, DATASETS[dataset])
    is_record = isinstance(content, list) and len(content) == 2
    parts = ["record 1", *parts, "correct"] if is_record else [*parts, "copy"]
    assert_names(caught.value, path, *parts)


@pytest.mark.parametrize("content", [b'[{"scene_id": ', b"\xff\xfe", b"[" * 100_000])
def test_no_json_is_refused(tmp_path, content):
    path = tmp_path / "DetailRefer_train.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"train.json: is not JSON .*; copy it again"):
        read_references(path, DATASETS["detailrefer"])


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"absent.json: no such file"):
        read_references(tmp_path / "absent.json", DATASETS["scanrefer"])
