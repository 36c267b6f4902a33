"""Weights for the parity cases: from a salt and a parameter's name, so that no file holds them."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def filled_state(case: Path) -> dict[str, Tensor]:
    """The state dict whose names and shapes a case's .json lists."""
    description = json.loads(case.read_text())
    return {
        name: filled(description["salt"], name, shape)
        for name, shape in description["shapes"].items()
    }


def filled(salt: str, name: str, shape: list[int]) -> Tensor:
    """One parameter, float32.

    Weights have a variance of one over their inputs; vectors lie around 1, running variances
    around 1.3, biases and running means around 0.
    """
    kind = name.split(".")[-1]
    if kind == "num_batches_tracked":
        return torch.ones((), dtype=torch.int64)
    generator = np.random.default_rng(zlib.crc32(f"{salt}:{name}".encode()))
    normal = torch.from_numpy(generator.standard_normal(shape).astype(np.float32))
    if kind == "running_var":
        return normal.abs() + 0.5
    if kind in ("bias", "running_mean", "in_proj_bias"):
        return normal * 0.05
    if len(shape) == 1:
        return normal * 0.1 + 1
    inputs = shape[1] if len(shape) == 2 else math.prod(shape[1:])
    return normal / np.float32(math.sqrt(inputs))
