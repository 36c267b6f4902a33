import math
import zipfile

import pytest
import torch
from hypothesis import given, settings

from refer3d.runs.errors import InputError
from refer3d.runs.states import (
    Array,
    Finite,
    Maybe,
    Number,
    adam_schema,
    check,
    load_adam,
    load_state,
    read_tensors,
    save_state,
)
from refer3d.text_encoder.cache import FORMAT, SCHEMA
from tests.errors import raises
from tests.mutations import EXAMPLES, edited, edits, is_refused, mutated, mutations

ANY = {...: Finite}
SENTENCE = {"format": FORMAT, "words": torch.ones(3, 4), "embedding": torch.ones(4)}


def test_states_go_and_come_back(tmp_path):
    save_state(tmp_path / "a.pt", {"format": 3, "steps": 5, "values": torch.arange(3), "more": 1})
    schema = {"steps": int, "values": Array((3,), torch.int64), "absent": Maybe(str)}
    state = load_state(tmp_path / "a.pt", 3, schema)
    assert state["values"].tolist() == [0, 1, 2]
    assert {**state, "values": 0} == {"steps": 5, "values": 0, "absent": None}


def test_views_are_saved_as_the_numbers_that_they_show(tmp_path):
    path, numbers = tmp_path / "a.pt", torch.arange(12.0).view(3, 4)
    views = {
        "expanded": numbers[:1].expand(200, 4),
        "part": torch.zeros(10**6)[:5],
        "turned": numbers.T,
        "windows": [*torch.arange(999.0).unfold(0, 990, 1)],
        "empty": numbers[:0],
    }
    save_state(path, {"format": 1, "numbers": numbers, "again": numbers, **views})
    assert path.stat().st_size < 100_000
    state = load_state(path, 1, ANY)
    assert state["numbers"] is state["again"]
    for name, expected in views.items():
        torch.testing.assert_close(state[name], expected, rtol=0, atol=0)


def test_broken_states_are_refused(tmp_path):
    path = tmp_path / "a.pt"
    with raises(InputError, "a.pt", "--resume"):
        load_state(path, 1, ANY)
    save_state(path, {"format": 1, "values": torch.zeros(1000)})
    with raises(InputError, "a.pt", "format 1", "2", "start again"):
        load_state(path, 2, ANY)
    path.write_bytes(path.read_bytes()[:1500])
    with raises(InputError, "a.pt", "cannot be read"):
        load_state(path, 1, ANY)
    for text in ("just text", "", "x = 1\n", "hello world " * 9):
        path.write_text(text)
        with raises(InputError, "a.pt", "cannot be read"):
            load_state(path, 1, ANY)
    torch.save([1, 2], path)
    with raises(InputError, "a.pt", "format None"):
        load_state(path, 1, ANY)
    torch.save({"format": 1, "code": test_states_go_and_come_back}, path)
    with raises(InputError, "a.pt", "could run code"):
        load_state(path, 1, ANY)


@pytest.mark.parametrize(
    ("value", "schema", "words"),
    [
        (torch.zeros(3), Array((4,)), "a: expected shape [4], got [3]"),
        (torch.zeros(3, 2), Array((3,)), "a: expected shape [3], got [3, 2]"),
        (torch.zeros(3).long(), Array((3,)), "a: expected torch.float32, got torch.int64"),
        (torch.tensor([1, math.nan]), Array((None,)), "a: expected finite values"),
        (torch.tensor([1, math.inf]), Finite, "a: expected finite values"),
        (torch.tensor(-1.0), Array((), low=0), "a: expected finite values from 0"),
        (3, Array(()), "a: expected a tensor, got 3"),
        (1.5, Number(int), "a: expected an integer"),
        (True, Number(int), "a: expected an integer"),
        (math.nan, Number(float, 0, 1), "a: expected a number from 0 to 1, got nan"),
        pytest.param(10**5000, Number(int), "a: expected an integer", id="5000 digits"),
        ([1, "b"], [int], "a[1]: expected int, got 'b'"),
        ({"b": 1}, {"c": int}, "a: expected 'c', got ['b']"),
        ({"b": {"c": None}}, {...: {"c": int}}, "a: b: c: expected int, got None"),
        (None, {...: int}, "a: expected names with values, got None"),
        (3, 4, "a: expected 4, got 3"),
        ([b"x"], Finite, "a[0]: expected a tensor or a plain value"),
    ],
)
def test_what_a_schema_does_not_declare_is_refused(value, schema, words):
    with pytest.raises(InputError) as error:
        check(value, schema, "a", "remedy")
    assert words in str(error.value)
    assert str(error.value).endswith("; remedy")


def test_a_letter_is_the_same_size_everywhere():
    schema = {"means": Array(("N", 3)), "radii": Array(("N",))}
    check({"means": torch.zeros(5, 3), "radii": torch.zeros(5)}, schema, "a", "")
    with raises(InputError, "radii", "[5]", "[4]"):
        check({"means": torch.zeros(5, 3), "radii": torch.zeros(4)}, schema, "a", "")


def itself():
    value = []
    value.append(value)
    return value


def laughs():
    value = ["ha"]
    for _ in range(60):
        value = [value, value]
    return value


UNUSUAL = {
    "one number as 400 GB": lambda: torch.zeros(1).expand(10**11),
    "views of one storage": lambda: [*torch.zeros(999).unfold(0, 990, 1)],
    "sparse": lambda: torch.zeros(3).to_sparse(),
    "sparse rows": lambda: torch.zeros(3, 3).to_sparse_csr(),
    "meta": lambda: torch.zeros(3, device="meta"),
    "quantized": lambda: torch.quantize_per_tensor(torch.zeros(3), 1, 0, torch.qint8),
    "nested": lambda: torch.nested.nested_tensor([torch.zeros(3)]),
}


@pytest.mark.filterwarnings("ignore")  # of torch, that these are deprecated or new
@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_tensors_are_refused(tmp_path, name):
    torch.save({"format": 1, "value": UNUSUAL[name]()}, tmp_path / "a.pt")
    with raises(InputError, "a.pt", "cannot be read", "remedy"):
        read_tensors(tmp_path / "a.pt", "remedy")


@pytest.mark.parametrize("make", [itself, laughs])
def test_lists_in_themselves_end(tmp_path, make):
    torch.save({"format": 1, "value": make()}, tmp_path / "a.pt")
    with raises(InputError, "a.pt", "expected 3"):
        load_state(tmp_path / "a.pt", 1, {"value": 3})


def rewrite(path, method, change=lambda pickle: pickle):
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in records.items():
            archive.writestr(name, change(content) if name.endswith("data.pkl") else content)


def test_compressed_files_are_refused(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"format": 1, "text": "a" * 10**6}, path)
    rewrite(path, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10**4
    with raises(InputError, "a.pt", "compressed"):
        load_state(path, 1, ANY)


def test_deep_lists_are_refused(tmp_path):
    path, depth = tmp_path / "a.pt", 10**4
    torch.save({"format": 1}, path)
    rewrite(
        path, zipfile.ZIP_STORED, lambda _: b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b"."
    )
    with raises(InputError, "a.pt", "cannot be read"):
        load_state(path, 1, ANY)


def test_a_tensor_cannot_claim_more_bytes_than_its_record(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"format": 1, "values": torch.zeros(77)}, path)
    rewrite(path, zipfile.ZIP_STORED, lambda pickle: pickle.replace(b"K\x4d", b"K\xff"))
    with raises(InputError, "a.pt"):
        load_state(path, 1, ANY)


def test_tensors_do_not_depend_on_the_file(tmp_path):
    path = tmp_path / "a.pt"
    save_state(path, {"format": 1, "values": torch.arange(3), "turned": torch.rand(4, 2).T})
    state = load_state(path, 1, ANY)
    path.write_bytes(b"")
    assert state["values"].tolist() == [0, 1, 2]
    assert state["turned"].is_contiguous()


def adam():
    parameters = [torch.nn.Parameter(torch.ones(5, 3)), torch.nn.Parameter(torch.ones(7))]
    optimizer = torch.optim.Adam(parameters, fused=True)
    return parameters, optimizer


def test_moments_of_another_shape_never_reach_fused_adam():
    parameters, optimizer = adam()
    parameters[0].grad = torch.ones(5, 3)
    optimizer.step()
    state = optimizer.state_dict()
    _, other = adam()
    load_adam(other, check(state, adam_schema(other), "a", ""))
    assert torch.equal(other.state_dict()["state"][0]["exp_avg"], state["state"][0]["exp_avg"])
    for name in ("exp_avg", "exp_avg_sq", "step"):
        broken = {"state": {0: {**state["state"][0], name: torch.zeros(2)}}}
        with raises(InputError, name, "shape"):
            check(broken, adam_schema(other), "a", "remedy")
    assert check({"state": {9: state["state"][0]}}, adam_schema(other), "a", "")["state"][0] is None


@settings(max_examples=EXAMPLES)
@given(mutation=mutations(SENTENCE))
def test_mutated_values_are_refused(tmp_path_factory, mutation):
    path = tmp_path_factory.getbasetemp() / "mutated.pt"
    torch.save(mutated(SENTENCE, *mutation), path)
    is_refused(lambda path: load_state(path, FORMAT, SCHEMA), path)


@settings(max_examples=EXAMPLES)
@given(changes=edits(2000))
def test_changed_bytes_are_refused_or_do_no_harm(tmp_path_factory, changes):
    path = tmp_path_factory.getbasetemp() / "changed.pt"
    torch.save(SENTENCE, path)
    path.write_bytes(edited(path.read_bytes(), changes))
    is_refused(lambda path: load_state(path, FORMAT, SCHEMA), path)
