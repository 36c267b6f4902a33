"""The marked part of a scan as a file for other programs: PLY, OBJ, glTF or LAS."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from plyfile import PlyData, PlyElement

from detailbase.scans.formats import import_package
from detailbase.scans.scan import Scan

_Z_TO_Y = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
"""Turns z up to y up."""
_DIGITS = 1e9
"""Steps of LAS's 32-bit integers over a part's extent."""


class Part(NamedTuple):
    """A part of a scan."""

    vertices: np.ndarray
    """[N, 3] float64, in the file's unit and axes."""
    colors: np.ndarray
    """[N, 3] uint8."""
    faces: np.ndarray
    """[F, 3] int64; F is 0 for a cloud."""
    upright: np.ndarray
    """[3, 3], from the file's axes and unit to metres with z up."""


def select_part(scan: Scan, mask: np.ndarray) -> Part:  # [N] bool
    """The faces whose corners are all marked, or the marked points where there is none."""
    faces = scan.faces[mask[scan.faces].all(axis=1)]
    rows = np.unique(faces) if len(faces) else np.flatnonzero(mask)
    number = np.zeros(len(mask), dtype=np.int64)
    number[rows] = np.arange(len(rows))
    return Part(scan.vertices[rows], scan.colors[rows], number[faces], scan.upright)


def require_writer(ending: str) -> None:
    """Checks that the package of a format, one of :data:`WRITERS`, is installed.

    Raises:
        InputError: It is not.
    """
    for package in _PACKAGES[ending]:
        import_package(package, f"--export: {ending}", "choose ply")


def installed_writers() -> list[str]:
    """The formats whose packages are installed."""
    return [ending for ending in WRITERS if all(map(find_spec, _PACKAGES[ending]))]


def write_ply(
    file: BinaryIO,
    vertices: np.ndarray,  # [N, 3] float64
    colors: np.ndarray,  # [N, 3] uint8
    faces: np.ndarray | None = None,  # [F, 3]
    selected: np.ndarray | None = None,  # [N] bool
) -> None:
    """Writes a binary PLY file of coloured points, with faces or ``selected`` (0 or 1) if given.

    Positions have 32 bits where those represent them exactly.
    """
    is_exact = (vertices.astype(np.float32) == vertices).all()
    columns = dict(zip("xyz", vertices.T, strict=True))
    columns |= dict(zip(("red", "green", "blue"), colors.T, strict=True))
    if selected is not None:
        columns["selected"] = selected
    kinds = [(n, "u1" if n not in "xyz" else "f4" if is_exact else "f8") for n in columns]
    rows = np.empty(len(vertices), dtype=kinds)
    for name, column in columns.items():
        rows[name] = column
    elements = [PlyElement.describe(rows, "vertex")]
    if faces is not None and len(faces):
        corners = np.empty(len(faces), dtype=[("vertex_indices", "i4", (3,))])
        corners["vertex_indices"] = faces
        elements.append(PlyElement.describe(corners, "face"))
    PlyData(elements).write(file)


def _write_ply(file: BinaryIO, part: Part) -> None:
    write_ply(file, part.vertices, part.colors, part.faces)


def _write_obj(file: BinaryIO, part: Part) -> None:
    shape = _shape(part.vertices, part.colors, part.faces)
    file.write(shape.export(file_type="obj").encode())


def _write_glb(file: BinaryIO, part: Part) -> None:
    """Writes metres with y up, as glTF prescribes; the colours of its vertices are linear.

    The node has the part's place in float64, since glTF's positions have 32 bits.
    """
    middle = part.vertices.mean(axis=0)
    turn = _Z_TO_Y @ part.upright
    matrix = np.eye(4)
    matrix[:3, 3] = turn @ middle
    shades = part.colors / 255
    linear = np.where(shades <= 0.04045, shades / 12.92, ((shades + 0.055) / 1.055) ** 2.4)
    colors = (linear * 255).round().astype(np.uint8)
    shape = _shape((part.vertices - middle) @ turn.T, colors, part.faces)
    scene = importlib.import_module("trimesh").Scene()
    scene.add_geometry(shape, node_name="part", geom_name="part", transform=matrix)
    file.write(scene.export(file_type="glb"))


def _write_las(file: BinaryIO, part: Part, compressed: bool = False) -> None:
    """Writes the points, with colours of 16 bits, in nine digits of their extent."""
    laspy = importlib.import_module("laspy")
    header = laspy.LasHeader(version="1.4", point_format=7)
    low, extent = part.vertices.min(axis=0), np.ptp(part.vertices, axis=0).max()
    header.offsets = low.round()
    header.scales = np.full(3, 10.0 ** np.ceil(np.log10(max(extent, 1.0) / _DIGITS)))
    las = laspy.LasData(header)
    las.x, las.y, las.z = part.vertices.T
    las.red, las.green, las.blue = part.colors.T.astype(np.uint16) * 257
    las.write(file, do_compress=compressed)


def _shape(vertices: np.ndarray, colors: np.ndarray, faces: np.ndarray) -> Any:
    trimesh = importlib.import_module("trimesh")
    if not len(faces):
        return trimesh.PointCloud(vertices, colors=colors)
    return trimesh.Trimesh(vertices, faces, vertex_colors=colors, process=False)


_PACKAGES = {
    **{"ply": (), "obj": ("trimesh",), "glb": ("trimesh",)},
    **{"las": ("laspy",), "laz": ("laspy", "lazrs")},
}
WRITERS: dict[str, Callable[[BinaryIO, Part], None]] = {
    "ply": _write_ply,
    "obj": _write_obj,
    "glb": _write_glb,
    "las": _write_las,
    "laz": lambda file, part: _write_las(file, part, compressed=True),
}
"""Writers by the ending of the file's name."""
