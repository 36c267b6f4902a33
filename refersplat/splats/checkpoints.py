"""Reads trained scenes of 3DGS, ReferSplat and this code; writes the files of Inria's viewers."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from refer3d.runs.errors import InputError
from refer3d.runs.files import atomic_write, describe_content
from refer3d.runs.folder import other_run
from refer3d.runs.records import read_json, short
from refer3d.runs.states import Array, check, read_tensors
from refersplat.command import newest_cloud
from refersplat.config import DataConfig
from refersplat.data import View
from refersplat.splats.formats import READERS, is_compressed_ply, load_compressed_ply
from refersplat.splats.gaussians import (
    SH_COEFFICIENTS,
    UNCOMPRESSED,
    Gaussians,
    load_ply,
    padded_sh,
    validate,
)

RGB_FORMAT = 1
"""Format of ``rgb_state.pt``, the state that training resumes from."""
INRIA_LENGTH = 12
REFERSPLAT_LENGTH = 17
REFERSPLAT_NETWORKS = ("mlp1", "mlp2", "mlp3", "cross_attention")
SH_SIZES = (1, 4, 9, 16)
GAUSSIANS = {
    "means": Array(("N", 3)),
    "log_scales": Array(("N", 3)),
    "quats": Array(("N", 4)),
    "logit_opacities": Array(("N",)),
    "sh": Array(("N", SH_COEFFICIENTS, 3)),
}
"""Schema of the Gaussians in ``rgb_state.pt``."""
OTHER_FILES = {
    ".ksplat": "a .ksplat of GaussianSplats3D",
    ".sog": "a .sog of PlayCanvas",
}
"""Files of viewers by their suffix."""
REMEDY = "give a chkpnt*.pth, rgb_state.pt or point_cloud.ply of a trained scene"


@dataclass(frozen=True)
class ReferSplatField:
    """The referring part of ReferSplat's checkpoints."""

    feature: Tensor
    """[N, C] referring feature of each Gaussian."""
    weights: dict[str, Tensor]
    """State dict of ``ReferringField``: of ``mlp1``, ``mlp2``, ``mlp3`` and ``cross_attention``."""


def load_gaussians(path: Path | str) -> Gaussians:
    """Reads the Gaussians of a trained scene, on the CPU.

    Takes a point cloud (.ply, also compressed; .splat; .spz), the checkpoint of Inria, ReferSplat,
    gsplat or nerfstudio, or ``rgb_state.pt``, told apart by content. No code in the file is run.

    Raises:
        InputError: The file is none of these, was cut, or holds values that cannot be rendered.
    """
    path = Path(path)
    if _is_ply(path):
        return load_compressed_ply(path) if is_compressed_ply(path) else load_ply(path)
    if reader := READERS.get(path.suffix.lower()):
        return reader(path)
    content = _load(path)
    if isinstance(content, dict) and "gaussians" in content:
        found = content.get("format")
        if type(found) is not int or found != RGB_FORMAT:
            raise InputError(
                f"{path}: has format {short(found)}, this code reads {RGB_FORMAT}; "
                "train the scene again"
            )
        gaussians = check(content["gaussians"], GAUSSIANS, f"{path}: gaussians", REMEDY)
        return validate(Gaussians(**gaussians), path)
    if isinstance(content, dict):
        content = _from_names(content)
    return _from_tuple(_scene_tuple(content, path), path)


def trained_gaussians(folder: Path) -> Gaussians:
    """Reads the Gaussians of a run.

    Raises:
        InputError: There are none yet, or their file is broken.
    """
    path = newest_cloud(folder)
    if path is None:
        raise InputError(
            f"{folder}/point_cloud: holds no iteration_*/point_cloud.ply, so the training has not "
            "ended; resume it with train.py --resume"
        )
    return load_gaussians(path)


def load_refersplat_field(path: Path | str) -> ReferSplatField | None:
    """Reads the referring feature and networks of a ReferSplat checkpoint; None in other files.

    Raises:
        InputError: The file cannot be read, or its referring part is broken.
    """
    path = Path(path)
    content = None if _is_ply(path) or path.suffix.lower() in READERS else _load(path)
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
            "take the checkpoint as ReferSplat wrote it"
        )
    for name, state in networks.items():
        if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
            raise InputError(
                f"{path}: {name} must be a state dict of tensors, got {_kind(state)}; "
                "take the checkpoint as ReferSplat wrote it"
            )
    weights = {f"{net}.{n}": w for net, state in networks.items() for n, w in state.items()}
    return ReferSplatField(feature.detach(), weights)


def save_viewer_files(folder: Path | str, views: Sequence[View], data: DataConfig) -> None:
    """Writes ``cameras.json`` and ``cfg_args``, which Inria's viewers need to open a folder."""
    folder = Path(folder)
    cameras = [
        {
            "id": index,
            "img_name": view.name,
            "width": view.camera.width,
            "height": view.camera.height,
            "position": view.camera.position.tolist(),
            "rotation": view.camera.world_to_camera[:3, :3].T.tolist(),
            "fy": view.camera.fy,
            "fx": view.camera.fx,
        }
        for index, view in enumerate(views)
    ]
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
    options = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    files = {"cameras.json": json.dumps(cameras), "cfg_args": f"Namespace({options})"}
    for name, text in files.items():
        with atomic_write(folder / name) as file:
            file.write(text.encode())


def check_resumed(
    folder: Path, gaussians: Gaussians, given: Gaussians | None, views: Sequence[View]
) -> None:
    """Checks that a resumed run goes on with what it began with, though files have moved.

    Args:
        folder: The run's.
        gaussians: The run's.
        given: Those of ``--start_checkpoint``.
        views: Those of the scene, if it has another place than before.

    Raises:
        InputError: The Gaussians or the views are others.
    """
    if given and not torch.equal(given.means, gaussians.means):
        raise InputError(
            f"--start_checkpoint: expected the {gaussians.count} Gaussians with which the run in "
            f"{folder} began, got {given.count} others; name their file"
        )
    path = folder / "cameras.json"
    cameras = read_json(path, list) if views and path.is_file() else []
    saved = {c.get("img_name"): c.get("position") for c in cameras if isinstance(c, dict)}
    for view in views if saved else ():
        position = view.camera.position
        if not torch.allclose(position, torch.tensor(saved.get(view.name, math.nan)), atol=1e-4):
            raise InputError(
                f"-s: expected the {len(saved)} views of the run in {folder}, got {view.name} at "
                f"{position.tolist()}; name the place to which its scene has moved"
            )


def _is_ply(path: Path) -> bool:
    if not path.is_file():
        raise InputError(f"{path}: no such file; {REMEDY}")
    with path.open("rb") as file:
        return path.suffix.lower() == ".ply" or file.read(3) == b"ply"


def _load(path: Path) -> Any:
    with path.open("rb") as file:
        start = file.read(64)
    kind = OTHER_FILES.get(path.suffix.lower(), "")
    if not kind and zipfile.is_zipfile(path):
        with (
            suppress(Exception),
            zipfile.ZipFile(path) as archive,
        ):  # read_tensors says what ails it
            is_torch = any(name.endswith("/data.pkl") for name in archive.namelist())
            kind = "" if is_torch else "a zip archive"
    elif not kind and not start.startswith((b"PK", b"\x80")):
        kind = describe_content(start) or "of no known kind"
    if kind:
        remedy = (
            UNCOMPRESSED if path.suffix.lower() in OTHER_FILES else f"copy it again, or {REMEDY}"
        )
        raise InputError(f"{path}: cannot be read as a checkpoint or .ply: it is {kind}; {remedy}")
    return read_tensors(path, f"copy it again, or {REMEDY}", " as a checkpoint")


def _from_names(content: dict[str, Any]) -> Any:
    """Gaussians of gsplat's or nerfstudio's checkpoint as Inria's parts; other content as it is."""
    inner = content.get("splats", content.get("pipeline"))
    values = {str(k).rpartition(".")[2]: v for k, v in inner.items()} if inner else {}
    names = ("means", "sh0", "shN", "scales", "quats", "opacities")
    if "features_dc" in values:
        values |= {"sh0": values["features_dc"], "shN": values.get("features_rest")}
    if not all(isinstance(values.get(name), Tensor) for name in names):
        return content
    if values["sh0"].dim() == 2:
        values["sh0"] = values["sh0"][:, None]
    empty = (None,) * (INRIA_LENGTH - 1 - len(names))
    return (None, *(values[name] for name in names), *empty)


def _scene_tuple(content: Any, path: Path) -> tuple:
    """The 12 parts of Inria's ``(parts, iteration)``, or the 17 of ReferSplat's."""
    parts = content[0] if isinstance(content, tuple | list) and len(content) == 2 else content
    lengths = (INRIA_LENGTH, REFERSPLAT_LENGTH)
    if not isinstance(parts, tuple | list) or len(parts) not in lengths:
        if other := other_run(path, "refersplat"):
            raise InputError(f"{path}: {other}")
        raise InputError(
            f"{path}: expected (12 or 17 parts, iteration) as 3DGS or ReferSplat save it, got "
            f"{_kind(parts)}; {REMEDY}"
        )
    return tuple(parts)


def _from_tuple(parts: tuple, path: Path) -> Gaussians:
    names = ("xyz", "features_dc", "features_rest", "scaling", "rotation", "opacity")
    for name, part in zip(names, parts[1:7], strict=True):
        if not isinstance(part, Tensor):
            raise InputError(f"{path}: {name} must be a tensor, got {_kind(part)}; {REMEDY}")
    means, dc, rest, log_scales, quats, opacities = (part.detach().float() for part in parts[1:7])
    for name, part in (("features_dc", dc), ("features_rest", rest)):
        if part.dim() != 3 or part.shape[2] != 3 or len(part) != len(means):
            raise InputError(
                f"{path}: {name} must have shape [{len(means)}, K, 3], got {list(part.shape)}; "
                "export the scene again"
            )
    if dc.shape[1] + rest.shape[1] not in SH_SIZES:
        raise InputError(
            f"{path}: features_dc and features_rest: expected 1, 4, 9 or 16 SH coefficients "
            f"(degree 0 to 3), got {dc.shape[1] + rest.shape[1]}; {REMEDY}"
        )
    return validate(
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
