"""Weights of published checkpoints, of SPFormer's backbone, and of our own files."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detailbase.model.network import DetailBase
from refer3d.runs.errors import InputError
from refer3d.runs.states import read_tensors

log = logging.getLogger(__name__)

BACKBONE = "backbone."
NAMES = {
    "backbone.input.": "input_conv.0.",
    "backbone.unet.": "unet.",
    "backbone.output_norm.": "output_layer.0.",
    "descriptors.": "facts.",
    "grouping.descriptors.": "objects.facts.",
    "grouping.": "objects.",
    "classifier.": "classify.",
}
"""Beginnings of the network's parameter names, and of the names in files: published ones, and those
that files have had from the start. Where two fit, the longer one counts; names without an entry, as
the decoder's, are the same."""
UNET_NAMES = {
    ".widen.": ".i_branch.0.",
    ".norm1.": ".conv_branch.0.",
    ".conv1.": ".conv_branch.2.",
    ".norm2.": ".conv_branch.3.",
    ".conv2.": ".conv_branch.5.",
    ".down_norm.": ".conv.0.",
    ".down.": ".conv.2.",
    ".up_norm.": ".deconv.0.",
    ".up.": ".deconv.2.",
}
"""Parts of the names inside the U-Net, and the published ones."""
MODULE = "module."
"""Prefix of names in the state dict of a parallel or an averaged model."""
WRAPPERS = ("model", "state_dict", "net")
"""Keys under which a checkpoint may keep its weights."""
IGNORED = ("text_encoder.", "criterion.")
"""Other content of published checkpoints: the frozen text encoder, and weights of the loss."""
SCALE = ".scale"
"""Suffix of the scales of a matrix of bytes, one for each row."""
SHOWN = 3
"""Number of keys of a kind that a message names."""


def file_names(state: dict[str, Any]) -> dict[str, Any]:
    """Renames a state dict of the network, or of its running mean, for a file."""
    return {_rename(name, NAMES, UNET_NAMES): value for name, value in state.items()}


def network_names(state: dict[str, Any]) -> dict[str, Any]:
    """Renames a state dict of a file for the network; the inverse of :func:`file_names`."""
    names, parts = ({new: old for old, new in table.items()} for table in (NAMES, UNET_NAMES))
    return {_rename(name, names, parts): value for name, value in state.items()}


def _rename(name: str, names: dict[str, str], unet_names: dict[str, str]) -> str:
    module = MODULE if name.startswith(MODULE) else ""
    rest = name.removeprefix(MODULE)
    begin = max((old for old in names if rest.startswith(old)), key=len, default="")
    rest = rest.removeprefix(begin)
    if begin.endswith("unet."):
        for old, new in unet_names.items():
            rest = f".{rest}".replace(old, new)[1:]
    return module + names.get(begin, "") + rest


def load_weights(
    network: DetailBase, weights: dict[str, Tensor], path: Path, strict: bool = True
) -> None:
    """Loads the weights of a whole network, in the order of spconv 1 or 2.

    Args:
        network: Takes the weights; it stays unchanged where an error is raised.
        weights: Those of a published checkpoint, or of ours; see :func:`read_weights`. Those of the
            text encoder and of the loss are ignored.
        path: File of the weights, for errors.
        strict: Whether every key must fit. If not, a warning lists those that do not.

    Raises:
        InputError: The keys do not fit.
    """
    weights = {name: value for name, value in weights.items() if not name.startswith(IGNORED)}
    _load(network, weights, path, file_names(network.state_dict()), strict)


def load_backbone(network: DetailBase, path: Path | str) -> None:
    """Loads the backbone alone, from SPFormer's file or from any checkpoint that has one.

    Heads and decoders in the file are ignored; the backbone must be there whole.

    Raises:
        InputError: The file cannot be read, or its backbone does not fit.
    """
    state, path = read_weights(path), Path(path)
    own = {name: value for name, value in network.state_dict().items() if name.startswith(BACKBONE)}
    expected = file_names(own)
    begins = tuple({f"{name.partition('.')[0]}." for name in expected})
    weights = {name: value for name, value in state.items() if name.startswith(begins)}
    if not weights:
        raise InputError(
            f"{path}: expected keys that begin with {', '.join(sorted(begins))}, got "
            f"{min(state)!r}; take SPFormer's sp_unet_backbone.pth"
        )
    _load(network, weights, path, expected, strict=True)
    log.info("%s: took %d of %d weights, the backbone's", path, len(weights), len(state))


def read_checkpoint(path: Path | str) -> Any:
    """Reads the whole content of a checkpoint; runs no code of the file.

    Raises:
        InputError: The file is absent or cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; name a .pth file with the network's weights")
    advice = "it may be cut, or hold more than tensors and plain values: get it again, or save its "
    return read_tensors(path, advice + "state dict alone", kind=" as a checkpoint")


def read_weights(path: Path | str, content: Any = None) -> dict[str, Tensor]:
    """Reads the weights of a checkpoint, under the names that files have, without "module.".

    Args:
        path: The file.
        content: Result of :func:`read_checkpoint`, if the file has been read.

    Raises:
        InputError: The file is absent, holds no weights, or a weight is not finite.
    """
    state = read_checkpoint(path) if content is None else content
    for wrapper in WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise InputError(
            f"{path}: expected weights by name, got {type(state).__name__}; get it again"
        )
    if not state:
        raise InputError(f"{path}: holds no weights; get it again")
    for name, value in state.items():
        if not isinstance(value, Tensor):
            got = type(value).__name__
            raise InputError(f"{path}: {name}: expected a tensor, got {got}; get it again")
        if not torch.isfinite(value).all():
            raise InputError(f"{path}: {name}: has values that are not finite; take another file")
    return file_names(from_bytes({n.removeprefix(MODULE): v for n, v in state.items()}))


def to_bytes(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Quantises matrices to int8, each row with a scale of its own: a quarter of the size."""
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
    """Restores what :func:`to_bytes` quantised; leaves other weights as they are."""
    return {
        name: value * weights[name + SCALE] if name + SCALE in weights else value
        for name, value in weights.items()
        if not (name.endswith(SCALE) and name.removesuffix(SCALE) in weights)
    }


def _load(
    network: DetailBase,
    state: dict[str, Tensor],
    path: Path,
    expected: dict[str, Tensor],
    strict: bool,
) -> None:
    """Loads a state, both it and ``expected`` under the names of files, if it fits."""
    state = _in_spconv2_order(state, expected)
    # Counters of steps that no computation reads; checkpoints before PyTorch 0.4.1 lack them.
    missing = [
        name for name in expected.keys() - state.keys() if not name.endswith("num_batches_tracked")
    ]
    unknown = list(state.keys() - expected.keys())
    mismatches = {
        name: f"{name} (expected {list(expected[name].shape)}, got {list(state[name].shape)})"
        for name in state.keys() & expected.keys()
        if state[name].shape != expected[name].shape
    }
    faults = {"missing": missing, "unknown": unknown, "of another shape": mismatches.values()}
    problems = [
        f"{len(names)} {fault}: {', '.join(sorted(names)[:SHOWN])}{', …' * (len(names) > SHOWN)}"
        for fault, names in faults.items()
        if names
    ]
    fitting = {n: v for n, v in state.items() if n in expected and n not in mismatches}
    if problems and (strict or not fitting):
        size, advice = state.get("decoder.lang_proj.weight"), "use the config of its run"
        if size is not None and size.shape == (256, 768):  # the published sizes
            advice = "give --config configs/detailbase/published.yaml"
        raise InputError(f"{path}: does not fit the network: {'; '.join(problems)}; {advice}")
    if problems:
        log.warning("%s: loaded %d weights; %s", path, len(fitting), "; ".join(problems))
    network.load_state_dict(network_names(fitting), strict=False)


def _in_spconv2_order(state: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Permutes weights of spconv 1, (x, y, z, in, out), to (out, x, y, z, in).

    One weight may fit both ways; all of a file's cannot, so they are permuted together. Those of
    1 x 1 x 1 keep the order of their numbers: both versions read them as (in, out).
    """
    kernels = [name for name in state.keys() & expected.keys() if expected[name].ndim == 5]
    if all(state[name].shape == expected[name].shape for name in kernels):
        return state
    permuted = {}
    for name in kernels:
        old, shape = state[name], expected[name].shape
        is_point = old.shape[:3] == shape[1:4] == (1, 1, 1) and old.numel() == shape.numel()
        if old.ndim == 5:
            permuted[name] = old.reshape(shape) if is_point else old.permute(4, 0, 1, 2, 3)
    fits = sum(value.shape == expected[name].shape for name, value in permuted.items())
    fits_as_is = sum(state[name].shape == expected[name].shape for name in kernels)
    return {**state, **permuted} if fits > fits_as_is else state
