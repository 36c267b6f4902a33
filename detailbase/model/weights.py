"""Weights from published checkpoints, and from SPFormer's backbone."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from refer3d.runs.errors import InputError
from refer3d.runs.states import read_tensors

log = logging.getLogger(__name__)

WRAPPERS = ("model", "state_dict", "net")
"""Under which of these a checkpoint may keep its weights."""
BACKBONE = ("input_conv.", "unet.", "output_layer.")
NOT_OURS = ("text_encoder.", "criterion.")
"""What published checkpoints carry beside: the text encoder, which is frozen and loaded by itself,
and the weights of the loss's terms."""
SCALE = ".scale"
"""Behind the name of a matrix of bytes: what each of its rows is to be multiplied by."""
SHOWN = 3
"""How many keys of a kind a message names."""


def load_weights(model: nn.Module, path: Path | str, strict: bool = True) -> None:
    """Loads a checkpoint of the whole network.

    The weights may lie plain or under a wrapper, with or without "module." before their names, and
    in either order that spconv has had. Those of the text encoder and of the loss are left out.

    Args:
        model: Takes the weights; it stays as it was where an error is raised.
        path: A checkpoint of the published code, or a state dict of this one.
        strict: Whether every key must fit. If not, what does not is said as a warning.

    Raises:
        InputError: The file cannot be read, or its keys do not fit.
    """
    put_weights(model, read_weights(path), Path(path), strict)


def put_weights(
    model: nn.Module, weights: dict[str, Tensor], path: Path, strict: bool = True
) -> None:
    """As :func:`load_weights`, of weights that have been read from ``path``."""
    state = {name: value for name, value in weights.items() if not name.startswith(NOT_OURS)}
    _load(model, state, path, model.state_dict(), strict)


def load_backbone(model: nn.Module, path: Path | str) -> None:
    """Loads the U-Net alone, from SPFormer's backbone or from any checkpoint that has one.

    Heads and decoders in the file are ignored; the U-Net must be there whole.

    Raises:
        InputError: The file cannot be read, or its U-Net does not fit.
    """
    state = read_weights(path)
    found = {name: value for name, value in state.items() if name.startswith(BACKBONE)}
    if not found:
        raise InputError(
            f"{path}: has no U-Net: no key begins with {', '.join(BACKBONE)}; the first is "
            f"{min(state)!r}; take SPFormer's sp_unet_backbone.pth"
        )
    expected = {name: own for name, own in model.state_dict().items() if name.startswith(BACKBONE)}
    _load(model, found, Path(path), expected, strict=True)
    log.info("%s: took %d of %d weights, the U-Net's", path, len(found), len(state))


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """The weights in a checkpoint, by name without "module."; runs no code of the file.

    Raises:
        InputError: There is no such file, or no weights are in it, or a weight is not finite.
    """
    return weights_in(read_checkpoint(path), Path(path))


def read_checkpoint(path: Path | str) -> Any:
    """What a checkpoint holds, weights and others; runs no code of the file.

    Raises:
        InputError: There is no such file, or it cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; name a .pth file with the network's weights")
    advice = "it may be cut, or hold more than tensors and plain values: get it again, or save its "
    return read_tensors(path, advice + "state dict alone", kind=" as a checkpoint")


def weights_in(content: Any, path: Path) -> dict[str, Tensor]:
    """The weights in what :func:`read_checkpoint` has read from ``path``.

    Raises:
        InputError: There are none, or one is not finite.
    """
    state = _unwrap(content, path)
    weights = {}
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise InputError(f"{path}: {name}: expected a tensor, got {type(value).__name__}")
        if not torch.isfinite(value).all():
            raise InputError(f"{path}: {name}: has values that are not finite; take another file")
        weights[name.removeprefix("module.")] = value
    return from_bytes(weights)


def to_bytes(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A quarter of the size: matrices as whole numbers, each row with a scale of its own."""
    small = {}
    for name, value in weights.items():
        if value.is_floating_point() and value.ndim > 1:
            scale = value.abs().flatten(1).amax(dim=1).clamp(min=1e-12) / 127
            scale = scale.view(-1, *[1] * (value.ndim - 1))
            small[name], small[name + SCALE] = (value / scale).round().to(torch.int8), scale
        else:
            small[name] = value
    return small


def from_bytes(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """What :func:`to_bytes` made small; other weights stay as they are."""
    return {
        name: value * weights[name + SCALE] if name + SCALE in weights else value
        for name, value in weights.items()
        if not (name.endswith(SCALE) and name.removesuffix(SCALE) in weights)
    }


def _unwrap(state: Any, path: Path) -> dict[str, Any]:
    for wrapper in WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise InputError(f"{path}: expected weights by name, got {type(state).__name__}")
    if not state:
        raise InputError(f"{path}: has no weights in it")
    return state


def _load(
    model: nn.Module,
    state: dict[str, Tensor],
    path: Path,
    expected: dict[str, Tensor],
    strict: bool,
) -> None:
    """Puts a state into the model, if it fits what is expected."""
    state = _in_todays_order(state, expected)
    # Counters of steps that no computation reads; checkpoints before PyTorch 0.4.1 lack them.
    missing = [
        name for name in expected.keys() - state.keys() if not name.endswith("num_batches_tracked")
    ]
    unknown = list(state.keys() - expected.keys())
    common = state.keys() & expected.keys()
    other_shape = [name for name in common if state[name].shape != expected[name].shape]
    problems = _list("missing", missing) + _list("unknown", unknown)
    for name in sorted(other_shape)[:SHOWN]:
        problems.append(
            f"{name} has shape {list(state[name].shape)}, not {list(expected[name].shape)}"
        )
    if len(other_shape) > SHOWN:
        problems.append(f"{len(other_shape) - SHOWN} more have another shape")
    fitting = {name: state[name] for name in common - set(other_shape)}
    if problems and (strict or not fitting):
        raise InputError(
            f"{path}: does not fit the network: {'; '.join(problems)}; {_advice(state)}"
        )
    if problems:
        log.warning("%s: loaded %d weights; %s", path, len(fitting), "; ".join(problems))
    model.load_state_dict(fitting, strict=False)


def _advice(state: dict[str, Tensor]) -> str:
    """Which config makes a network that fits."""
    published = "decoder.lang_proj.weight"
    if published in state and state[published].shape == (256, 768):
        return "it has the published sizes: give --config configs/detailbase/published.yaml"
    return "use the config of the run that made it"


def _list(kind: str, names: list[str]) -> list[str]:
    """A line about some keys, or none."""
    if not names:
        return []
    shown = ", ".join(sorted(names)[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    return [f"{len(names)} {'key is' if len(names) == 1 else 'keys are'} {kind} ({shown})"]


def _in_todays_order(state: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Turns weights of spconv 1, (x, y, z, in, out), to (out, x, y, z, in).

    One weight may fit both ways; all of a file's cannot, so they are turned together. Those of
    1 x 1 x 1, which only widen, keep their numbers' order: they are read as (in, out) in either.
    """
    kernels = [name for name in state.keys() & expected.keys() if expected[name].ndim == 5]
    if all(state[name].shape == expected[name].shape for name in kernels):
        return state
    turned = {}
    for name in kernels:
        old, shape = state[name], expected[name].shape
        is_point = old.shape[:3] == shape[1:4] == (1, 1, 1) and old.numel() == shape.numel()
        if old.ndim == 5:
            turned[name] = old.reshape(shape) if is_point else old.permute(4, 0, 1, 2, 3)
    fits = sum(value.shape == expected[name].shape for name, value in turned.items())
    fits_as_is = sum(state[name].shape == expected[name].shape for name in kernels)
    return {**state, **turned} if fits > fits_as_is else state
