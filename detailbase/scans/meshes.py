"""Meshes and clouds in PLY files of any program."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
from plyfile import PlyData, PlyElement, PlyElementParseError, PlyParseError

from refer3d.runs.errors import InputError

log = logging.getLogger(__name__)

TRIANGLES = {"face": {"vertex_indices": 3, "vertex_index": 3}}
COLORS = (("red", "green", "blue"), ("diffuse_red", "diffuse_green", "diffuse_blue"), tuple("rgb"))
"""Names of the colour channels in files."""
GREY = 127
NEARLY_ONE = 1.01
"""Largest colour of a scale from 0 to 1: interpolation exceeds it a little."""
DARKEST = 8
"""Least brightest colour of a scan on a scale to 255."""


class Mesh(NamedTuple):
    """A scanned surface."""

    vertices: np.ndarray
    """[N, 3] float64, because geographic coordinates need more digits than float32 has."""
    colors: np.ndarray
    """[N, 3] uint8."""
    faces: np.ndarray
    """[F, 3] int64; F may be 0."""


def read_mesh(path: Path) -> Mesh:
    """Reads vertices, colours and faces of a PLY file, ASCII or binary.

    Colours are bytes, or numbers from 0 to 1; without any, all vertices are grey. Polygons are cut
    into triangles.

    Raises:
        InputError: The file is absent or broken.
    """
    ply = read_ply(path)
    vertex = vertices_of(ply, path)
    vertices = _columns(vertex, path, "xyz")
    if not len(vertices):
        raise InputError(f"{path}: has no vertices; scan or copy it again")
    _check_finite(path, vertices, "its position")
    return Mesh(vertices, _colors(vertex, path), _faces(ply, path, len(vertices)))


def read_ply(path: Path) -> PlyData:
    """Reads the elements of a PLY file.

    Raises:
        InputError: It is absent or broken.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; name or copy the PLY file of a scan")
    with path.open("rb") as file:
        if (start := file.read(3)) and start != b"ply":
            raise InputError(f"{path}: is not a PLY file; export it as PLY")
    try:
        try:  # thirty times faster, but only triangles can be read so
            return PlyData.read(str(path), known_list_len=TRIANGLES)
        except PlyElementParseError:
            return PlyData.read(str(path))
    except (PlyParseError, ValueError, TypeError, OverflowError, EOFError, MemoryError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: is not a whole PLY file ({reason}); copy it again") from error


def vertices_of(ply: PlyData, path: Path) -> PlyElement:
    """Returns the element with the points."""
    if "vertex" not in ply:
        names = ", ".join(element.name for element in ply.elements) or "none"
        raise InputError(f"{path}: has no element vertex, only {names}; export it as a mesh")
    return ply["vertex"]


def _columns(vertex: PlyElement, path: Path, names: str | tuple[str, ...]) -> np.ndarray:
    """Reads some of the vertices' properties as [N, C] float64."""
    properties = [p.name for p in vertex.properties]
    if absent := [name for name in names if name not in properties]:
        raise InputError(
            f"{path}: its vertices have no {absent[0]}, only {', '.join(properties)}; export it "
            f"with {', '.join(names)}"
        )
    try:
        return np.stack([np.asarray(vertex[name]).astype(np.float64) for name in names], axis=1)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{path}: {', '.join(names)} of its vertices must be single numbers, not lists; export "
            "it again"
        ) from error


def _colors(vertex: PlyElement, path: Path) -> np.ndarray:
    """Reads the vertices' colours as [N, 3] uint8."""
    properties = {p.name for p in vertex.properties}
    names = next((names for names in COLORS if properties.intersection(names)), None)
    if names is None:
        log.warning("%s: its vertices have no colours; all become grey", path)
        return np.full((len(vertex.data), 3), GREY, dtype=np.uint8)
    colors = _columns(vertex, path, names)
    _check_finite(path, colors, "its colour")
    is_float = vertex.data[names[0]].dtype.kind == "f"
    if is_float and colors.max(initial=0) <= NEARLY_ONE:
        colors = colors.clip(max=1) * 255
    elif is_float and colors.max(initial=0) < DARKEST:
        raise InputError(
            f"{path}: its colours reach up to {colors.max():g}, which is neither 0 to 1 nor 0 to "
            "255; export it with colours of 8 bits"
        )
    if not 0 <= colors.min(initial=0) <= colors.max(initial=0) <= 255:
        row = int(np.flatnonzero(((colors < 0) | (colors > 255)).any(axis=1))[0])
        raise InputError(
            f"{path}: vertex {row}: its colour must be 0 to 255, or 0 to 1 in floating point, got "
            f"{vertex.data[list(names)][row].item()}; export it with colours of 8 bits"
        )
    return colors.round().astype(np.uint8)


def _check_finite(path: Path, rows: np.ndarray, name: str) -> None:
    if not np.isfinite(rows).all():
        row = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        raise InputError(
            f"{path}: vertex {row}: {name} must be finite, got {rows[row].tolist()}; remove such "
            "vertices"
        )


def _faces(ply: PlyData, path: Path, count: int) -> np.ndarray:
    """Reads the faces as [F, 3] triangles; polygons are cut into fans."""
    if "face" not in ply or not len(ply["face"].data):
        return np.zeros((0, 3), dtype=np.int64)
    properties = [p.name for p in ply["face"].properties]
    name = next((name for name in TRIANGLES["face"] if name in properties), None)
    if name is None:
        raise InputError(
            f"{path}: its faces have no vertex_indices, only {', '.join(properties)}; export it "
            "again"
        )
    corners = ply["face"][name]
    if corners.dtype == object and all(c.dtype.kind in "iu" for c in corners):
        fans = [(c[0], c[i], c[i + 1]) for c in corners for i in range(1, len(c) - 1)]
        corners = np.array(fans, dtype=np.int64).reshape(-1, 3)
    faces = corners.astype(np.int64)
    if faces.ndim != 2 or corners.dtype.kind not in "iu":
        raise InputError(f"{path}: vertex_indices must be lists of vertex numbers; export it again")
    if not 0 <= faces.min(initial=0) <= faces.max(initial=0) < count:
        row, column = np.argwhere((faces < 0) | (faces >= count))[0]
        raise InputError(
            f"{path}: face {row} names vertex {faces[row, column]}, but there are {count}; copy or "
            "export it again"
        )
    return faces
