from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from detailbase.config import Config, NetworkConfig
from detailbase.model.build import build
from detailbase.model.network import DetailBase
from detailbase.model.weights import (
    file_names,
    load_backbone,
    load_weights,
    network_names,
    read_weights,
    to_bytes,
)
from refer3d.runs.config import load_yaml
from refer3d.runs.errors import InputError
from tests.detailbase.errors import assert_names

State = dict[str, Tensor]
ROOT = Path(__file__).parents[2]
PATHS = os.pathsep.join(sys.path)
BLOCK = "unet.blocks.block0.conv_branch.2.weight"


def make_network(seed: int, channels: tuple[int, ...] = (8, 12)) -> DetailBase:
    torch.manual_seed(seed)
    options = NetworkConfig(channels=channels, width=16, heads=2, hidden=16, layers=1, objects=2)
    return build(options, text_dim=8)


def state_of(network: DetailBase) -> State:
    """Under the names that files have."""
    return file_names(network.state_dict())


@pytest.fixture
def trained() -> State:
    return state_of(make_network(1))


def assert_loaded(network: DetailBase, state: State, prefix: str = "") -> None:
    for name, value in state_of(network).items():
        if name.startswith(prefix):
            assert torch.equal(value, state[name]), name


def load(network: DetailBase, path: Path, strict: bool = True) -> None:
    load_weights(network, read_weights(path), path, strict)


def save(path: Path, state: object) -> Path:
    torch.save(state, path)
    return path


def in_old_order(state: State) -> State:
    """(out, x, y, z, in) to (x, y, z, in, out); of 1 x 1 x 1, whose numbers are (in, out) in both
    versions of spconv, only the shape."""

    def old(value: Tensor) -> Tensor:
        if value.shape[1:4] == (1, 1, 1):
            return value.reshape(1, 1, 1, value.shape[4], value.shape[0])
        return value.permute(1, 2, 3, 4, 0).contiguous()

    return {name: old(value) if value.ndim == 5 else value for name, value in state.items()}


def with_others(state: State) -> State:
    return {
        **state,
        "text_encoder.pooler.dense.weight": torch.zeros(2, 2),
        "criterion.loss_weight": torch.ones(3),
    }


def in_module(state: State) -> State:
    return {f"module.{name}": value for name, value in state.items()}


def without_counters(state: State) -> State:
    return {name: value for name, value in state.items() if "num_batches" not in name}


def test_names_in_files_are_the_published_ones(trained):
    names = json.loads((ROOT / "tests/parity/cases/detailbase_a.json").read_text())["shapes"]
    published = load_yaml(ROOT / "configs/detailbase/published.yaml", Config).network
    network = build(published, text_dim=768)
    assert {n for n in names if not n.startswith("text_encoder.")} == state_of(network).keys()
    begins = {name.partition(".")[0] for name in trained}
    parts = {"input_conv", "unet", "output_layer", "decoder", "facts", "objects", "classify"}
    assert begins == parts
    assert network_names(trained).keys() == make_network(1).state_dict().keys()
    averaged = {f"module.{name}": value for name, value in trained.items()}
    assert [*network_names(averaged)] == [f"module.{name}" for name in network_names(trained)]


@pytest.mark.parametrize(
    "wrap",
    [
        dict,
        with_others,
        in_module,
        in_old_order,
        lambda state: {"model": state, "epoch": 3},
        lambda state: {"state_dict": in_module(in_old_order(with_others(state)))},
        lambda state: {"model": {"state_dict": state}},
        network_names,
    ],
    ids=["plain", "others", "module", "old", "model", "all", "twice", "module names"],
)
def test_published_forms_are_read(wrap: Callable[[State], object], trained, tmp_path):
    network = make_network(2)
    load(network, save(tmp_path / "best.pth", wrap(trained)))
    assert_loaded(network, trained)


def test_old_checkpoint_without_counters_is_whole(trained, tmp_path):
    network = make_network(2)
    load(network, save(tmp_path / "best.pth", without_counters(trained)))
    assert_loaded(network, {**state_of(network), **without_counters(trained)})


@pytest.mark.parametrize("order", [dict, in_old_order], ids=["today", "old"])
def test_weight_that_fits_both_ways_follows_the_others(order, tmp_path):
    # With 3 channels a 3 x 3 x 3 weight has the shape [3, 3, 3, 3, 3] in either order.
    trained, network = state_of(make_network(1, (3, 12))), make_network(2, (3, 12))
    assert trained[BLOCK].shape == (3, 3, 3, 3, 3)
    load(network, save(tmp_path / "best.pth", order(trained)))
    assert_loaded(network, trained)


def test_point_weights_of_spconv_1_multiply_as_they_did(rng, tmp_path):
    """spconv 1 kept them as (1, 1, 1, in, out), and computed x @ weight."""
    network = make_network(2)
    name = "unet.blocks_tail.block0.i_branch.0.weight"
    state = in_old_order(state_of(make_network(1)))
    weight = torch.randn(1, 1, 1, 16, 8, generator=rng)
    load(network, save(tmp_path / "best.pth", {**state, name: weight}))
    x = torch.randn(5, 16, generator=rng)
    widen = network.backbone.unet.blocks_tail["block0"].widen
    assert_close(widen(x), x @ weight[0, 0, 0])


def test_backbone_is_taken_from_among_others(trained, tmp_path):
    others = {"decoder.query.weight": torch.zeros(2), "semantic_linear.0.weight": torch.zeros(3)}
    backbone = {name: value for name, value in trained.items() if not name.startswith("decoder.")}
    network = make_network(2)
    before = {name: value.clone() for name, value in state_of(network).items()}
    load_backbone(network, save(tmp_path / "spformer.pth", {"net": {**backbone, **others}}))
    assert_loaded(network, trained, "unet.")
    assert_loaded(network, trained, "input_conv.")
    assert_loaded(network, trained, "output_layer.")
    assert_loaded(network, before, "decoder.")


def test_loose_loading_takes_what_fits_and_lists_the_rest(trained, tmp_path, caplog):
    del trained["decoder.out_norm.bias"]
    trained["decoder.out_norm.weight"] = torch.zeros(3)
    trained["head.weight"] = torch.zeros(1)
    network = make_network(2)
    with caplog.at_level(logging.WARNING):
        load(network, save(tmp_path / "best.pth", trained), strict=False)
    assert torch.equal(state_of(network)[BLOCK], trained[BLOCK])
    assert "1 missing: decoder.out_norm.bias;" in caplog.text
    assert "1 unknown: head.weight;" in caplog.text
    assert "decoder.out_norm.weight (expected [16], got [3])" in caplog.text


def without(*beginnings: str) -> Callable[[State], State]:
    return lambda state: {
        name: value for name, value in state.items() if not name.startswith(beginnings)
    }


def broken(name: str, value: object) -> Callable[[State], object]:
    return lambda state: {**state, name: value}


class Anything:
    """An object that only code of the file could make."""


# The damage to a state dict, and what its error names in this order.
NORM, CONFIG, AGAIN = "decoder.out_norm.bias", "use the config", "get it again"
BROKEN = {
    "missing": (without(NORM), "missing", NORM, CONFIG),
    "many": (without("unet.blocks."), "missing", "unet.blocks.block0.conv_branch.0.", CONFIG),
    "unknown": (broken("head.weight", torch.zeros(1)), "unknown", "head.weight", CONFIG),
    "shape": (broken(NORM, torch.zeros(9)), NORM, "[16]", "[9]", CONFIG),
    "kernel": (
        broken(BLOCK, torch.zeros(8, 5, 5, 5, 8)),
        *(BLOCK, "[8, 3, 3, 3, 8]", "[8, 5, 5, 5, 8]", CONFIG),
    ),
    "other width": (lambda _: state_of(make_network(1, (16, 24))), "shape", "…", CONFIG),
    "nan": (broken(NORM, torch.full((16,), torch.nan)), NORM, "not finite", "another file"),
    "infinite": (
        broken(BLOCK, torch.full((8, 3, 3, 3, 8), torch.inf)),
        *(BLOCK, "not finite", "another file"),
    ),
    "no tensor": (broken(BLOCK, [1.0]), BLOCK, "tensor", "list", AGAIN),
    "list": (lambda state: list(state.values()), "weights by name", "list", AGAIN),
    "tensor": (lambda _: torch.zeros(3), "weights by name", "Tensor", AGAIN),
    "numbered": (lambda _: {0: torch.zeros(3)}, "weights by name", "dict", AGAIN),
    "empty": (lambda _: {"model": {}}, "no weights", AGAIN),
    "code": (lambda _: {"model": Anything()}, "tensors", AGAIN),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_checkpoint_is_an_error_and_changes_nothing(name, trained, tmp_path):
    damage, *parts = BROKEN[name]
    network = make_network(2)
    before = {key: value.clone() for key, value in state_of(network).items()}
    path = save(tmp_path / "best.pth", damage(trained))
    with pytest.raises(InputError) as caught:
        load(network, path)
    assert_names(caught.value, path, *parts)
    assert_loaded(network, before)


def test_broken_files_are_errors(trained, tmp_path):
    network, path = make_network(2), tmp_path / "best.pth"
    whole = save(path, trained).read_bytes()
    for content in (None, b"", b"version https://git-lfs", whole[: len(whole) // 2]):
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputError) as caught:
            load(network, path)
        assert_names(caught.value, path, "name a .pth" if content is None else "get it again")
        path.touch()


def test_loose_loading_needs_something_that_fits(tmp_path):
    path = save(tmp_path / "best.pth", {"head.weight": torch.zeros(1)})
    with pytest.raises(InputError) as caught:
        load(make_network(2), path, strict=False)
    assert_names(caught.value, path, "missing", "use the config")


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (without("unet.", "input_conv.", "output_layer."), ("unet.", "sp_unet_backbone.pth")),
        (without("unet.u."), ("missing", "unet.u.blocks", CONFIG)),
        (
            broken("unet.u.u.conv.0.weight", torch.zeros(1)),
            ("unknown", "unet.u.u.conv.0.weight", CONFIG),
        ),
    ],
    ids=["none", "part", "deeper"],
)
def test_a_broken_backbone_is_an_error(damage, parts, trained, tmp_path):
    path = save(tmp_path / "spformer.pth", damage(trained))
    with pytest.raises(InputError) as caught:
        load_backbone(make_network(2), path)
    assert_names(caught.value, path, *parts)


def test_bytes_are_nearly_the_weights(tmp_path):
    rng = torch.Generator().manual_seed(0)
    weights = {"a.weight": torch.randn(5, 3, 3, generator=rng), "a.bias": torch.randn(5)}
    weights["steps"] = torch.tensor(7)
    small = to_bytes(weights)
    assert small["a.weight"].dtype == torch.int8
    torch.save(small, tmp_path / "small.pth")
    restored = read_weights(tmp_path / "small.pth")
    assert restored.keys() == weights.keys()
    assert torch.equal(restored["a.bias"], weights["a.bias"])
    step = weights["a.weight"].abs().flatten(1).amax(dim=1).view(5, 1, 1) / 127
    assert ((restored["a.weight"] - weights["a.weight"]).abs() <= 0.5001 * step).all()


def test_a_shrunk_checkpoint_keeps_its_options(trained, tmp_path):
    state = {"format": 1, "model": trained, "config": {"seed": 3}, "encoder": "hash"}
    torch.save(state, tmp_path / "best.pth")
    command = [sys.executable, str(ROOT / "scripts" / "shrink_checkpoint.py")]
    paths = [str(tmp_path / name) for name in ("best.pth", "small.pth")]
    subprocess.run([*command, *paths], check=True, env={**os.environ, "PYTHONPATH": PATHS})
    small = torch.load(tmp_path / "small.pth", weights_only=True)
    assert {key: small[key] for key in state if key != "model"} == {
        key: state[key] for key in state if key != "model"
    }
    assert read_weights(tmp_path / "small.pth").keys() == trained.keys()
