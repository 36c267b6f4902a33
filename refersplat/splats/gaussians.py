"""The Gaussians of a scene, and their point cloud files (.ply)."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import plyfile
import torch
from torch import Tensor

from refer3d.runs.errors import InputError
from refer3d.runs.files import atomic_write
from refersplat.data.capture import read_vertices
from refersplat.ops.reference import rotation

SH_COEFFICIENTS = 16
"""Coefficients of spherical harmonics of degree 3; lower degrees are padded with zeros."""


LARGEST = 1e12
"""Numbers beyond it overflow when float32 squares them in the projection."""
SHORTEST = 1e-12
"""Rotations shorter than it are zero to the projection."""
REMEDY = "give the point_cloud.ply of a 3DGS run, or fit one with train.py -s SCENE"
UNCOMPRESSED = "export it as an uncompressed .ply, for example with SuperSplat or splat-transform"
OTHER_TOOLS = {
    "packed_position": ("is compressed by SuperSplat", UNCOMPRESSED),
    "filter_3D": ("has Mip-Splatting's filter", "fuse it with create_fused_ply.py"),
    "f_offset_0": ("holds the anchors of Scaffold-GS", REMEDY),
}
"""Content of a .ply by a property, and the remedy."""


@dataclass
class Gaussians:
    """N Gaussians as unconstrained parameters, as they are optimised and stored."""

    means: Tensor
    """[N, 3] centres in the world frame."""
    log_scales: Tensor
    """[N, 3] logarithms of the standard deviations along the Gaussian's own axes."""
    quats: Tensor
    """[N, 4] rotations as wxyz, of any length but zero."""
    logit_opacities: Tensor
    """[N] opacities before the sigmoid."""
    sh: Tensor
    """[N, 16, 3] spherical harmonics of the colour, one row per coefficient."""

    @property
    def count(self) -> int:
        """N."""
        return len(self.means)

    @property
    def scales(self) -> Tensor:
        """[N, 3] standard deviations in the scene's unit."""
        return self.log_scales.exp()

    @property
    def rotations(self) -> Tensor:
        """[N, 3, 3] matrices whose columns are the Gaussian's axes in the world frame."""
        return rotation(self.quats)

    @property
    def opacities(self) -> Tensor:
        """[N] in (0, 1)."""
        return self.logit_opacities.sigmoid()

    @property
    def sh_dc(self) -> Tensor:
        """[N, 1, 3] coefficient of degree 0, the colour from every direction."""
        return self.sh[:, :1]

    @property
    def sh_rest(self) -> Tensor:
        """[N, 15, 3] coefficients of degrees 1 to 3, which depend on the viewing direction."""
        return self.sh[:, 1:]

    def map(self, function: Callable[[Tensor], Tensor]) -> Gaussians:
        """The Gaussians with ``function`` applied to each of their tensors."""
        return Gaussians(**{name: function(tensor) for name, tensor in self.tensors().items()})

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by field name, not copied."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def to(self, device: torch.device | str) -> Gaussians:
        """The same Gaussians on ``device``."""
        return self.map(lambda tensor: tensor.to(device))

    def select(self, mask: Tensor) -> Gaussians:
        """The Gaussians where ``mask`` [N] is True, or those of an index tensor."""
        return self.map(lambda tensor: tensor[mask])

    def detached(self) -> Gaussians:
        """The same values without autograd history."""
        return self.map(Tensor.detach)

    def joined(self, other: Gaussians) -> Gaussians:
        """These Gaussians followed by ``other``."""
        rows = other.tensors()
        return Gaussians(**{name: torch.cat([t, rows[name]]) for name, t in self.tensors().items()})


def padded_sh(sh: Tensor) -> Tensor:
    """[N, K, 3] of a lower degree (K = 1, 4, 9 or 16) as [N, 16, 3]."""
    missing = SH_COEFFICIENTS - sh.shape[1]
    return torch.cat([sh, sh.new_zeros(len(sh), missing, 3)], dim=1) if missing else sh


def validate(gaussians: Gaussians, path: Path | str) -> Gaussians:
    """Returns the Gaussians of the file ``path``, checked.

    Raises:
        InputError: There are none, shapes disagree, a value is not finite or a rotation is zero.
    """
    count = gaussians.count
    if count == 0:
        raise InputError(f"{path}: holds no Gaussians; give the file of a trained scene")
    shapes = {
        "means": (count, 3),
        "log_scales": (count, 3),
        "quats": (count, 4),
        "logit_opacities": (count,),
        "sh": (count, SH_COEFFICIENTS, 3),
    }
    limits = {"log_scales": math.log(LARGEST)}
    for name, tensor in gaussians.tensors().items():
        if tuple(tensor.shape) != shapes[name]:
            raise InputError(
                f"{path}: {name} must have shape {list(shapes[name])}, got {list(tensor.shape)}; "
                "export the scene again"
            )
        limit = limits.get(name, LARGEST)
        is_fine = (tensor <= limit) & (tensor > (-math.inf if name in limits else -LARGEST))
        if bad := int((~is_fine).reshape(count, -1).any(dim=1).sum()):
            raise InputError(
                f"{path}: {name} of {bad} of {count} Gaussians is NaN, infinite or beyond "
                f"{limit:.3g}, where float32 overflows; remove them or export the scene again"
            )
    is_zero = gaussians.quats.double().norm(dim=1) < SHORTEST
    if zero := int(is_zero.sum()):
        raise InputError(
            f"{path}: quats of {zero} of {count} Gaussians have length zero; "
            "remove them or export the scene again"
        )
    return gaussians


def ply_properties(rest: int) -> list[str]:
    """Names of Inria's properties in their order, with ``rest`` values ``f_rest``."""
    return [
        *("x", "y", "z", "nx", "ny", "nz"),
        *(f"f_dc_{i}" for i in range(3)),
        *(f"f_rest_{i}" for i in range(rest)),
        "opacity",
        *(f"scale_{i}" for i in range(3)),
        *(f"rot_{i}" for i in range(4)),
    ]


def save_ply(gaussians: Gaussians, path: Path | str) -> None:
    """Writes a point cloud in Inria's format, which the viewers of 3D Gaussian Splatting open.

    Opacities are logits, scales logarithms, rotations wxyz; ``f_rest`` is channel-major, and the
    unused normals are zero.
    """
    gaussians = gaussians.detached().to("cpu")
    columns = torch.cat(
        [
            gaussians.means,
            torch.zeros_like(gaussians.means),
            gaussians.sh_dc[:, 0],
            gaussians.sh_rest.transpose(1, 2).flatten(1),
            gaussians.logit_opacities[:, None],
            gaussians.log_scales,
            gaussians.quats,
        ],
        dim=1,
    )
    names = ply_properties(rest=3 * (SH_COEFFICIENTS - 1))
    rows = np.ascontiguousarray(columns.numpy(), dtype="<f4").view([(n, "<f4") for n in names])[
        :, 0
    ]
    vertices = plyfile.PlyElement.describe(rows, "vertex")
    with atomic_write(path) as file:
        plyfile.PlyData([vertices], byte_order="<").write(file)


def load_ply(path: Path | str) -> Gaussians:
    """Reads the point cloud of a trained scene, of any SH degree up to 3.

    Raises:
        InputError: The file is absent, no PLY, cut, lacks a property, or holds values that cannot
            be rendered.
    """
    vertices = read_vertices(
        Path(path), "export or copy it again, or give the .ply of a trained scene"
    )
    names = vertices.dtype.names or ()
    _refuse_other_tools(names, path)
    rest = sum(name.startswith("f_rest_") for name in names)
    if rest not in (0, 9, 24, 45):
        raise InputError(
            f"{path}: has {rest} f_rest properties, expected 0, 9, 24 or 45; export the scene with "
            "SH degree 0 to 3"
        )
    needed = [name for name in ply_properties(rest) if name not in ("nx", "ny", "nz")]
    missing = [name for name in needed if name not in names]
    if missing:
        remedy = "export it again"
        if "opacity" not in names and "scale_0" not in names:
            remedy = (
                "if this is the SfM input, give point_cloud/iteration_*/point_cloud.ply instead"
            )
        raise InputError(
            f"{path}: has no property {missing[0]!r}, expected x y z, f_dc_*, f_rest_*, opacity, "
            f"scale_* and rot_*; {remedy}"
        )
    columns = torch.from_numpy(
        np.stack([vertices[name].astype(np.float32) for name in needed], axis=1)
    )
    means, dc, rest_columns, opacities, scales, quats = columns.split([3, 3, rest, 1, 3, 4], dim=1)
    sh_rest = rest_columns.unflatten(1, (3, rest // 3)).transpose(1, 2)
    gaussians = Gaussians(
        means=means,
        log_scales=scales,
        quats=quats,
        logit_opacities=opacities[:, 0],
        sh=padded_sh(torch.cat([dc[:, None], sh_rest], dim=1)),
    )
    return validate(gaussians.map(Tensor.contiguous), path)


def _refuse_other_tools(names: Collection[str], path: Path | str) -> None:
    kind = next((OTHER_TOOLS[name] for name in OTHER_TOOLS if name in names), None)
    if kind is None and "scale_0" in names:
        if "f_dc_0" not in names:
            kind = "has no spherical harmonics", "from nerfstudio, use --ply-color-mode sh_coeffs"
        elif "scale_2" not in names:
            kind = "holds the discs of 2DGS, with two scales", REMEDY
    if kind:
        raise InputError(f"{path}: expected 3D Gaussians, but it {kind[0]}; {kind[1]}")
