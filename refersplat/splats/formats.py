"""Files of Gaussians for viewers: .splat, .spz, SuperSplat's compressed .ply, and glTF.

===================  ==================================================  =====================
file                 keeps                                               written and read by
===================  ==================================================  =====================
``.ply``             everything                                          :mod:`.gaussians`
``.compressed.ply``  11 to 14 bits a number, harmonics in 8 bits          gsply
``.spz``             24-bit positions, 8 bits for the rest                gsply
``.splat``           exact places and scales, one colour in 8 bits        this module
``.glb``             everything; KHR_gaussian_splatting, only written     this module
===================  ==================================================  =====================
"""

from __future__ import annotations

import importlib
import json
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from refer3d.runs.errors import InputError, reason
from refer3d.runs.files import atomic_write
from refersplat.splats.gaussians import SH_COEFFICIENTS, Gaussians, padded_sh, save_ply, validate

SH_C0 = 0.28209479177387814
"""Value of the spherical harmonic of degree 0."""
SPLAT = np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("quat", "u1", 4)])
"""A row of a .splat file (32 bytes)."""
_LARGEST_LOGIT = 12.0  # of an opacity that 8 bits hold as 1
_FLIP_YZ = (1, -1, -1, 1, -1, 1, 1, -1, 1, -1, 1, -1, -1, 1, -1, 1)
"""Signs of the spherical harmonics when y and z change theirs."""
GLTF = "KHR_gaussian_splatting"
_GLTF_FLOAT, _GLTF_POINTS, _GLTF_ARRAY = 5126, 0, 34962
_GLTF_WIDTHS = {1: "SCALAR", 3: "VEC3", 4: "VEC4"}


def save_gaussians(gaussians: Gaussians, path: Path | str, up: Tensor | None = None) -> None:
    """Writes the Gaussians in the format that the file's name ends in; see :data:`WRITERS`.

    Args:
        gaussians: At least one.
        path: The file.
        up: [3] direction that glTF turns upwards; other formats keep the scene's frame.

    Raises:
        InputError: The name has another ending, or the format needs a package that is not
            installed.
    """
    name = Path(path).name.lower()
    ending = next((ending for ending in WRITERS if name.endswith(ending)), None)
    if ending is None:
        raise InputError(
            f"{path}: expected a name that ends in {', '.join(WRITERS)}, got {name!r}; choose one"
        )
    gaussians = gaussians.detached().to("cpu")
    if ending == ".glb":
        _save_glb(gaussians, path, up)
    else:
        WRITERS[ending](gaussians, path)


def load_splat(path: Path | str) -> Gaussians:
    """Reads a .splat file, whose colours do not depend on the direction.

    Raises:
        InputError: The file is cut, or holds values that cannot be rendered.
    """
    content = Path(path).read_bytes()
    if not content or len(content) % SPLAT.itemsize:
        raise InputError(
            f"{path}: expected rows of {SPLAT.itemsize} bytes, got {len(content)} bytes; the file "
            "is cut or no .splat: copy it again"
        )
    rows = np.frombuffer(content, SPLAT)
    rgba = torch.from_numpy(rows["rgba"].astype(np.float32) / 255)
    scales = torch.from_numpy(rows["scale"].copy())
    return validate(
        Gaussians(
            means=torch.from_numpy(rows["mean"].copy()),
            log_scales=scales.clamp(min=1e-12).log(),
            quats=torch.from_numpy((rows["quat"].astype(np.float32) - 128) / 128),
            logit_opacities=rgba[:, 3].logit().clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT),
            sh=padded_sh((rgba[:, None, :3] - 0.5) / SH_C0),
        ),
        path,
    )


def load_spz(path: Path | str) -> Gaussians:
    """Reads an .spz file of Niantic's versions 1 to 4, turned from its frame (y up) to .ply's.

    Raises:
        InputError: gsply is not installed, or the file is broken.
    """
    return validate(_flipped(_from_gsply(_call(path, "read_spz"))), path)


def load_compressed_ply(path: Path | str) -> Gaussians:
    """Reads SuperSplat's compressed .ply.

    Raises:
        InputError: gsply is not installed, or the file is broken.
    """
    return validate(_from_gsply(_call(path, "plyread")), path)


def is_compressed_ply(path: Path | str) -> bool:
    """Whether a .ply has SuperSplat's packed properties."""
    with Path(path).open("rb") as file:
        return b" packed_position" in file.read(4096)


def require_gsply(path: Path | str) -> Any:
    """Imports gsply.

    Raises:
        InputError: It is not installed.
    """
    try:
        return importlib.import_module("gsply")
    except ImportError as error:
        raise InputError(
            f"{path}: this format needs gsply, which is not installed; pip install "
            "'refer3d[export]', or use .ply"
        ) from error


def _call(path: Path | str, function: str) -> Any:
    call = getattr(require_gsply(path), function)
    try:
        return call(str(path))
    except Exception as error:  # of any kind: the library reads bytes as they come
        raise InputError(
            f"{path}: cannot be read ({reason(error)}); copy or export it again"
        ) from error


def _from_gsply(data: Any) -> Gaussians:
    arrays = [np.array(array, np.float32, copy=True) for array in
              (data.means, data.scales, data.quats, data.opacities, data.sh0)]  # fmt: skip
    means, scales, quats, opacities, dc = map(torch.from_numpy, arrays)
    sh = dc.reshape(-1, 1, 3)
    if data.shN is not None and np.size(data.shN):
        rest = torch.from_numpy(np.array(data.shN, np.float32)).reshape(len(means), -1, 3)
        sh = torch.cat([sh, rest], dim=1)
    # 0 and 1 of 8 bits come as infinite logits.
    opacities = opacities.flatten().clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT)
    return Gaussians(means, scales, quats, opacities, padded_sh(sh))


def _to_gsply(gaussians: Gaussians, path: Path | str) -> Any:
    gsply = require_gsply(path)
    quats = gaussians.quats / gaussians.quats.norm(dim=1, keepdim=True)
    rest = gaussians.sh_rest if gaussians.sh_rest.any() else None
    return gsply.GSData.from_arrays(
        *(tensor.numpy() for tensor in (gaussians.means, gaussians.log_scales, quats)),
        gaussians.logit_opacities.numpy(),
        gaussians.sh_dc[:, 0].contiguous().numpy(),
        None if rest is None else rest.contiguous().numpy(),
        format="ply",
    )


def _flipped(gaussians: Gaussians) -> Gaussians:
    """The Gaussians with y and z negated: from .ply's frame, y down, to .spz's, y up, or back."""
    signs = gaussians.means.new_tensor([1, -1, -1])
    return Gaussians(
        means=gaussians.means * signs,
        log_scales=gaussians.log_scales,
        quats=gaussians.quats * gaussians.quats.new_tensor([1, 1, -1, -1]),
        logit_opacities=gaussians.logit_opacities,
        sh=gaussians.sh * gaussians.sh.new_tensor(_FLIP_YZ)[:, None],
    )


def _save_spz(gaussians: Gaussians, path: Path | str) -> None:
    data = _to_gsply(_flipped(gaussians), path)
    with tempfile.TemporaryDirectory() as folder, atomic_write(path) as file:
        draft = Path(folder, "draft.spz")
        require_gsply(path).write_spz(draft, data)
        file.write(draft.read_bytes())


def _save_compressed_ply(gaussians: Gaussians, path: Path | str) -> None:
    content = require_gsply(path).compress_to_bytes(_to_gsply(gaussians, path))
    with atomic_write(path) as file:
        file.write(content)


def _save_splat(gaussians: Gaussians, path: Path | str) -> None:
    """Writes the largest and most opaque first, which viewers show before the file is complete."""
    order = (gaussians.log_scales.sum(dim=1).exp() * gaussians.opacities).argsort(descending=True)
    gaussians = gaussians.select(order)
    colors = (SH_C0 * gaussians.sh_dc[:, 0] + 0.5).clamp(0, 1)
    rgba = torch.cat([colors, gaussians.opacities[:, None]], dim=1)
    quats = gaussians.quats / gaussians.quats.norm(dim=1, keepdim=True)
    rows = np.empty(gaussians.count, SPLAT)
    rows["mean"], rows["scale"] = gaussians.means.numpy(), gaussians.scales.numpy()
    rows["rgba"] = (rgba * 255).round().byte().numpy()
    rows["quat"] = (quats * 128 + 128).round().clamp(0, 255).byte().numpy()
    with atomic_write(path) as file:
        file.write(rows.tobytes())


def _save_glb(gaussians: Gaussians, path: Path | str, up: Tensor | None) -> None:
    """Writes the ratified KHR_gaussian_splatting: linear scales, opacities in 0..1, xyzw."""
    quats = gaussians.quats / gaussians.quats.norm(dim=1, keepdim=True)
    colors = (SH_C0 * gaussians.sh_dc[:, 0] + 0.5).clamp(0, 1)
    linear = torch.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    attributes = {
        "POSITION": gaussians.means,
        "COLOR_0": torch.cat([linear, gaussians.opacities[:, None]], dim=1),  # for other viewers
        f"{GLTF}:ROTATION": quats[:, [1, 2, 3, 0]],
        f"{GLTF}:SCALE": gaussians.scales,
        f"{GLTF}:OPACITY": gaussians.opacities[:, None],
    }
    degrees = [(degree, index) for degree in range(4) for index in range(2 * degree + 1)]
    for (degree, index), row in zip(degrees, gaussians.sh.unbind(dim=1), strict=True):
        attributes[f"{GLTF}:SH_DEGREE_{degree}_COEF_{index}"] = row
    accessors, views, blocks, offset = [], [], [], 0
    for name, tensor in attributes.items():
        block = tensor.contiguous().numpy().astype("<f4").tobytes()
        accessor = {"bufferView": len(views), "componentType": _GLTF_FLOAT,
                    "count": gaussians.count, "type": _GLTF_WIDTHS[tensor.shape[1]]}  # fmt: skip
        if name == "POSITION":
            accessor |= {"min": tensor.amin(0).tolist(), "max": tensor.amax(0).tolist()}
        accessors.append(accessor)
        views.append({"buffer": 0, "byteOffset": offset, "byteLength": len(block),
                      "target": _GLTF_ARRAY})  # fmt: skip
        blocks.append(block)
        offset += len(block)
    primitive = {
        "attributes": {name: index for index, name in enumerate(attributes)},
        "mode": _GLTF_POINTS,
        "extensions": {GLTF: {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}},
    }
    document = {
        "asset": {"version": "2.0", "generator": "refer3d"},
        "extensionsUsed": [GLTF],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0} if up is None else {"mesh": 0, "rotation": _turn_to_y(up)}],
        "meshes": [{"primitives": [primitive]}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": offset}],
    }
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    with atomic_write(path) as file:
        file.write(struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + offset))
        file.write(struct.pack("<I4s", len(text), b"JSON") + text)
        file.write(struct.pack("<I4s", offset, b"BIN\0"))
        file.writelines(blocks)


def _turn_to_y(up: Tensor) -> list[float]:
    """The shortest rotation (xyzw) that turns ``up`` [3] to glTF's y."""
    x, y, z = (up.double() / up.double().norm()).tolist()
    if y < -1 + 1e-9:
        return [1.0, 0.0, 0.0, 0.0]
    length = (2 * (1 + y)) ** 0.5  # (u × y, 1 + u·y), normalised
    return [-z / length, 0.0, x / length, length / 2]


WRITERS: dict[str, Callable[..., None]] = {
    ".compressed.ply": _save_compressed_ply,
    ".ply": save_ply,
    ".splat": _save_splat,
    ".spz": _save_spz,
    ".glb": _save_glb,
}
"""Writers by the end of the file's name."""
READERS: dict[str, Callable[[Path], Gaussians]] = {".splat": load_splat, ".spz": load_spz}
"""Readers by the suffix of the file's name; a .ply tells its kind in its header."""
assert len(_FLIP_YZ) == SH_COEFFICIENTS
