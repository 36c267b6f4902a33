"""The Gaussians of a scene, and the point cloud files they are kept in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import plyfile
import torch
from torch import Tensor

from refer3d.runs.errors import InputError
from refer3d.runs.files import atomic_write
from refersplat.ops.reference import rotation

SH_COEFFICIENTS = 16
"""Spherical harmonics are held up to degree 3; lower degrees are padded with zeros."""


@dataclass
class Gaussians:
    """N Gaussians, in the unconstrained form in which they are optimised and stored."""

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
        """[N, 1, 3] the part of the colour that is the same from everywhere."""
        return self.sh[:, :1]

    @property
    def sh_rest(self) -> Tensor:
        """[N, 15, 3] the part of the colour that changes with the direction of view."""
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
        """Those where ``mask`` [N] is True, or those that an index tensor names."""
        return self.map(lambda tensor: tensor[mask])

    def detached(self) -> Gaussians:
        """The same values without autograd history."""
        return self.map(Tensor.detach)

    def joined(self, other: Gaussians) -> Gaussians:
        """These Gaussians followed by ``other``."""
        theirs = other.tensors()
        return Gaussians(
            **{name: torch.cat([own, theirs[name]], dim=0) for name, own in self.tensors().items()}
        )


def padded_sh(sh: Tensor) -> Tensor:
    """[N, K, 3] of a lower degree (K = 1, 4, 9 or 16) as [N, 16, 3]."""
    missing = SH_COEFFICIENTS - sh.shape[1]
    return torch.cat([sh, sh.new_zeros(len(sh), missing, 3)], dim=1) if missing else sh


def checked(gaussians: Gaussians, path: Path | str) -> Gaussians:
    """``gaussians`` as read from ``path``, if every number in them can be used.

    Raises:
        InputError: If there are none, shapes disagree, a value is not finite or a rotation is zero.
    """
    count = gaussians.count
    if count == 0:
        raise InputError(f"{path}: holds no Gaussians; point to a trained scene")
    shapes = {
        "means": (count, 3),
        "log_scales": (count, 3),
        "quats": (count, 4),
        "logit_opacities": (count,),
        "sh": (count, SH_COEFFICIENTS, 3),
    }
    for name, tensor in gaussians.tensors().items():
        if tuple(tensor.shape) != shapes[name]:
            raise InputError(
                f"{path}: {name} must have shape {list(shapes[name])}, got {list(tensor.shape)}; "
                "the file is not a 3DGS scene or was cut, export it again"
            )
        bad = int((~tensor.isfinite()).reshape(count, -1).any(dim=1).sum())
        if bad:
            raise InputError(
                f"{path}: {name} of {bad} of {count} Gaussians is NaN or infinite; "
                "remove them or export the scene again"
            )
    flat = int((gaussians.quats.norm(dim=1) == 0).sum())
    if flat:
        raise InputError(
            f"{path}: quats of {flat} of {count} Gaussians have length zero; "
            "a rotation must have a direction, export the scene again"
        )
    return gaussians


def ply_properties(rest: int) -> list[str]:
    """Names of the properties in Inria's order, with ``rest`` direction-dependent coefficients."""
    return [
        *("x", "y", "z", "nx", "ny", "nz"),
        *(f"f_dc_{i}" for i in range(3)),
        *(f"f_rest_{i}" for i in range(rest)),
        "opacity",
        *(f"scale_{i}" for i in range(3)),
        *(f"rot_{i}" for i in range(4)),
    ]


def save_ply(gaussians: Gaussians, path: Path | str) -> None:
    """Writes a point cloud that the viewers of 3D Gaussian Splatting open (Inria's format).

    Opacities are logits, scales logarithms, rotations wxyz; ``f_rest`` is channel-major, and the
    normals, which nothing uses, are zero.
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
        InputError: If the file is not there, is no PLY, was cut, lacks a property, or holds values
            that cannot be rendered.
    """
    vertices = _read_vertices(Path(path))
    names = vertices.dtype.names or ()
    rest = sum(name.startswith("f_rest_") for name in names)
    if rest not in (0, 9, 24, 45):
        raise InputError(
            f"{path}: has {rest} f_rest properties, expected 0, 9, 24 or 45 (SH degree 0 to 3); "
            "export the scene again"
        )
    wanted = [name for name in ply_properties(rest) if name not in ("nx", "ny", "nz")]
    missing = [name for name in wanted if name not in names]
    if missing:
        raise InputError(
            f"{path}: has no property {missing[0]!r}; a trained scene has "
            "x y z, f_dc_*, f_rest_*, opacity, scale_* and rot_*. "
            "Is this the SfM input instead of point_cloud/iteration_*/point_cloud.ply?"
        )
    columns = torch.from_numpy(
        np.stack([vertices[name].astype(np.float32) for name in wanted], axis=1)
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
    return checked(gaussians.map(Tensor.contiguous), path)


def _read_vertices(path: Path) -> np.ndarray:
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the .ply or chkpnt*.pth of a trained scene")
    try:
        document = plyfile.PlyData.read(path, mmap=False)
    except (plyfile.PlyParseError, UnicodeDecodeError, ValueError) as error:
        raise InputError(
            f"{path}: is not a whole PLY file ({error}); export or copy it again"
        ) from error
    if "vertex" not in document:
        raise InputError(f"{path}: has no element 'vertex'; give the .ply of a trained scene")
    return document["vertex"].data
