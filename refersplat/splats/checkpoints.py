"""Scenes trained here or elsewhere: reads them all, writes Inria's checkpoint and viewer files."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from refer3d.runs.errors import InputError
from refer3d.runs.files import atomic_write
from refer3d.runs.states import first_line, save_tensors
from refersplat.config import DataConfig
from refersplat.data import View
from refersplat.ops.adam import BETAS, EPSILON
from refersplat.rgb.densify import DensificationStatistics
from refersplat.rgb.optimizer import Adam
from refersplat.splats.gaussians import Gaussians, checked, load_ply, padded_sh

RGB_FORMAT = 1
"""Of ``rgb_state.pt``, which training goes on from."""
INRIA_LENGTH = 12
REFERSPLAT_LENGTH = 17
REFERSPLAT_NETWORKS = ("mlp1", "mlp2", "mlp3", "cross_attention")
SH_SIZES = (1, 4, 9, 16)
NOT_A_SCENE = "give a chkpnt*.pth, rgb_state.pt or point_cloud.ply of a trained scene"


@dataclass(frozen=True)
class ReferSplatField:
    """What ReferSplat's checkpoints hold beyond the Gaussians."""

    feature: Tensor
    """[N, C] referring feature of each Gaussian."""
    weights: dict[str, Tensor]
    """State dict of ``ReferringField``: of ``mlp1``, ``mlp2``, ``mlp3`` and ``cross_attention``."""


def load_gaussians(path: Path | str) -> Gaussians:
    """Reads the Gaussians of a trained scene, on the CPU.

    Point clouds (.ply), Inria's checkpoints, ReferSplat's and our own ``rgb_state.pt`` are told
    apart by what is in them. No code in the file is run.

    Raises:
        InputError: If the file is none of these, was cut, or holds what cannot be rendered.
    """
    path = Path(path)
    if path.suffix.lower() == ".ply":
        return load_ply(path)
    content = _load(path)
    if isinstance(content, dict) and "gaussians" in content:
        if content.get("format") != RGB_FORMAT:
            raise InputError(
                f"{path}: has format {content.get('format')}, this code reads {RGB_FORMAT}; "
                "train the scene again"
            )
        try:
            gaussians = Gaussians(**content["gaussians"])
        except TypeError as error:
            raise InputError(f"{path}: holds other tensors ({error}); {NOT_A_SCENE}") from error
        return checked(gaussians, path)
    return _from_tuple(_scene_tuple(content, path), path)


def load_refersplat_field(path: Path | str) -> ReferSplatField | None:
    """Reads the referring feature and networks of a ReferSplat checkpoint; None in other files.

    Raises:
        InputError: If the file cannot be read, or its referring part is broken.
    """
    path = Path(path)
    content = None if path.suffix.lower() == ".ply" else _load(path)
    if content is None or isinstance(content, dict):
        return None
    parts = _scene_tuple(content, path)
    if len(parts) != REFERSPLAT_LENGTH:
        return None
    feature, networks = parts[7], dict(zip(REFERSPLAT_NETWORKS, parts[-4:], strict=True))
    count = _from_tuple(parts, path).count
    if not isinstance(feature, Tensor) or feature.dim() != 2 or len(feature) != count:
        raise InputError(
            f"{path}: the referring feature must have shape [{count}, C], got {_kind(feature)}; "
            "the file is not ReferSplat's or was edited"
        )
    for name, state in networks.items():
        if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
            raise InputError(
                f"{path}: {name} must be a state dict of tensors, got {_kind(state)}; "
                "the file is not ReferSplat's or was edited"
            )
    weights = {f"{net}.{n}": w for net, state in networks.items() for n, w in state.items()}
    return ReferSplatField(feature.detach(), weights)


def save_inria_checkpoint(
    path: Path | str,
    adam: Adam,
    statistics: DensificationStatistics,
    rates: dict[str, list[float]],
    sh_degree: int,
    extent: float,
    iteration: int,
) -> None:
    """Writes ``chkpnt<n>.pth`` as Inria's ``restore`` takes it, optimizer included."""

    def fields(gaussians: Gaussians) -> dict[str, Tensor]:
        return {
            "xyz": gaussians.means,
            "f_dc": gaussians.sh_dc.contiguous(),
            "f_rest": gaussians.sh_rest.contiguous(),
            "opacity": gaussians.logit_opacities[:, None],
            "scaling": gaussians.log_scales,
            "rotation": gaussians.quats,
        }

    values = {name: nn.Parameter(t.detach()) for name, t in fields(adam.gaussians).items()}
    first, second = fields(adam.first), fields(adam.second)
    rate = {
        "xyz": rates["means"][0],
        "f_dc": rates["sh"][0],
        "f_rest": rates["sh"][-1],
        "opacity": rates["logit_opacities"][0],
        "scaling": rates["log_scales"][0],
        "rotation": rates["quats"][0],
    }
    common = {"betas": BETAS, "eps": EPSILON, "weight_decay": 0, "amsgrad": False}
    common |= dict.fromkeys(("maximize", "capturable", "differentiable"), False)
    common |= dict.fromkeys(("foreach", "fused"), None)
    steps = torch.tensor(float(adam.steps))
    optimizer = {
        "state": {
            index: {"step": steps.clone(), "exp_avg": first[name], "exp_avg_sq": second[name]}
            for index, name in enumerate(values)
        },
        "param_groups": [
            {"lr": rate[name], "name": name, **common, "params": [index]}
            for index, name in enumerate(values)
        ],
    }
    scene = (
        sh_degree,
        values["xyz"],
        values["f_dc"],
        values["f_rest"],
        values["scaling"],
        values["rotation"],
        values["opacity"],
        statistics.max_radii,
        statistics.gradient[:, None],
        statistics.views[:, None],
        optimizer,
        float(extent),
    )
    save_tensors(path, (scene, iteration))


def save_viewer_files(folder: Path | str, views: Sequence[View], data: DataConfig) -> None:
    """Writes ``cameras.json`` and ``cfg_args``, without which Inria's viewers open no folder."""
    folder = Path(folder)
    cameras = []
    for index, view in enumerate(views):
        camera = view.camera
        cameras.append(
            {
                "id": index,
                "img_name": view.name,
                "width": camera.width,
                "height": camera.height,
                "position": camera.position.tolist(),
                "rotation": camera.world_to_camera[:3, :3].T.tolist(),
                "fy": camera.fy,
                "fx": camera.fx,
            }
        )
    arguments = {
        "sh_degree": 3,
        "source_path": str(Path(data.scene).absolute()),
        "model_path": str(folder.absolute()),
        "images": data.images,
        "resolution": data.resolution,
        "white_background": data.white_background,
        "data_device": "cpu",
        "eval": data.eval,
    }
    listed = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    for name, text in (
        ("cameras.json", json.dumps(cameras)),
        ("cfg_args", f"Namespace({listed})"),
    ):
        with atomic_write(folder / name) as file:
            file.write(text.encode())


def _load(path: Path) -> Any:
    """``torch.load`` without code, but with the NumPy numbers that Inria's extent is saved as."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; {NOT_A_SCENE}")
    scalar = np.float64(0).__reduce__()[0]
    numbers = [
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
        *(np.dtype, np.dtypes.Float32DType, np.dtypes.Float64DType),
    ]
    try:
        with torch.serialization.safe_globals(numbers):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error):
            raise InputError(
                f"{path}: holds Python objects besides tensors and numbers, which are not loaded "
                f"because they could run code; {NOT_A_SCENE}"
            ) from error
        raise _unreadable(path, error) from error
    except Exception as error:  # bytes that are no pickle make its reader fail in any way
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = first_line(error) or "it ends too early"
    return InputError(
        f"{path}: is not a whole checkpoint ({reason}); copy it again, or {NOT_A_SCENE}"
    )


def _scene_tuple(content: Any, path: Path) -> tuple:
    """The 12 or 17 parts of Inria's or ReferSplat's ``(parts, iteration)``."""
    parts = content[0] if isinstance(content, tuple | list) and len(content) == 2 else content
    lengths = (INRIA_LENGTH, REFERSPLAT_LENGTH)
    if not isinstance(parts, tuple | list) or len(parts) not in lengths:
        raise InputError(
            f"{path}: expected (12 or 17 parts, iteration) as 3DGS or ReferSplat save it, got "
            f"{_kind(parts)}; {NOT_A_SCENE}"
        )
    return tuple(parts)


def _from_tuple(parts: tuple, path: Path) -> Gaussians:
    names = ("xyz", "features_dc", "features_rest", "scaling", "rotation", "opacity")
    for name, part in zip(names, parts[1:7], strict=True):
        if not isinstance(part, Tensor):
            raise InputError(f"{path}: {name} must be a tensor, got {_kind(part)}; {NOT_A_SCENE}")
    means, dc, rest, log_scales, quats, opacities = (part.detach().float() for part in parts[1:7])
    for name, part in (("features_dc", dc), ("features_rest", rest)):
        if part.dim() != 3 or part.shape[2] != 3 or len(part) != len(means):
            raise InputError(
                f"{path}: {name} must have shape [{len(means)}, K, 3], got {list(part.shape)}; "
                "the file is not a 3DGS scene or was edited"
            )
    if dc.shape[1] + rest.shape[1] not in SH_SIZES:
        raise InputError(
            f"{path}: has {dc.shape[1] + rest.shape[1]} SH coefficients, "
            f"expected {', '.join(map(str, SH_SIZES[:-1]))} or {SH_SIZES[-1]} (degree 0 to 3)"
        )
    return checked(
        Gaussians(
            means=means,
            log_scales=log_scales,
            quats=quats,
            logit_opacities=opacities.flatten(),
            sh=padded_sh(torch.cat([dc, rest], dim=1)),
        ),
        path,
    )


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)}"
    if isinstance(value, tuple | list | dict):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"
