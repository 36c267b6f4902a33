"""The json files of photos that ``refersplat masks`` writes and reads again."""

import json

import pytest

from refer3d.runs.errors import InputError
from refersplat.masks.records import Masked, PhotoRecord, read_record
from refersplat.masks.sentences import Subject
from tests.errors import raises

CUP, BOWL = Subject("cup", ("the cup", "a mug")), Subject(None, ("the bowl",))
RECORD = PhotoRecord({CUP: Masked("cup.png", 0.5, 1.0, (3, 1))}, [BOWL], [("cup", "the bowl")])


def test_a_record_comes_back(tmp_path):
    RECORD.write(tmp_path / "a.json")
    assert read_record(tmp_path / "a.json") == RECORD
    assert read_record(tmp_path / "b.json") is None


@pytest.mark.parametrize(
    ("field", "value", "name"),
    [
        ("object", [{}], "sentence"),
        ("absent", [{"category": ["cup"], "sentence": ["a"]}], "category"),
        ("absent", [{"sentence": [["a"]]}], "sentence"),
        ("same", [["cup"]], "pairs"),
        ("same", [5], "same"),
        ("same", [["cup", {}]], "same"),
    ],
)
def test_a_damaged_record_is_refused(tmp_path, field, value, name):
    path = tmp_path / "a.json"
    RECORD.write(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with raises(InputError, path, name, "delete it"):
        read_record(path)
