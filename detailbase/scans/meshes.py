"""Meshes and clouds in PLY files of any program."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from plyfile import PlyData, PlyElement

from detailbase.scans.textures import read_texture, sample_texture
from refer3d.runs import ply as plys
from refer3d.runs.errors import InputError
from refer3d.runs.records import first_few, short

log = logging.getLogger(__name__)

TRIANGLES = {"face": {"vertex_indices": 3, "vertex_index": 3}}
CORNERS = ("vertex_indices", "vertex_index", "vertex_indexes")
"""Names of a face's list of vertices."""
COORDINATES = (("s", "t"), ("u", "v"), ("texture_u", "texture_v"))
"""Names of a vertex's place in the texture."""
GREY = 127
EXPORT = "export it again"


class Mesh(NamedTuple):
    """A scanned surface."""

    vertices: np.ndarray
    """[N, 3] float64, because geographic coordinates need more digits than float32 has."""
    colors: np.ndarray
    """[N, 3] uint8."""
    faces: np.ndarray
    """[F, 3] int64; F may be 0."""
    up: str = "z"
    """The format's vertical axis, one of ``UPS``."""
    samples: tuple[np.ndarray, np.ndarray] | None = None
    """Positions and colours of more points of the surface, where the faces are large."""


def read_mesh(path: Path) -> Mesh:
    """Reads vertices, colours and faces of a PLY file, ASCII or binary.

    Colours are bytes, or numbers from 0 to 1 or 65535; they may be packed, a Gaussian's, or in a
    texture. Without any, all vertices are grey. Polygons and strips are cut into triangles.

    Raises:
        InputError: The file is absent or broken.
    """
    ply = read_ply(path)
    vertex = vertices_of(ply, path)
    vertices = positions_of(vertex.data, path)
    if not len(vertices):
        raise InputError(f"{path}: has no vertices; scan or copy it again")
    if not np.isfinite(vertices).all():
        row = int(np.flatnonzero(~np.isfinite(vertices).all(axis=1))[0])
        raise InputError(
            f"{path}: vertex {row}: its position must be finite, got {vertices[row].tolist()}; "
            "remove such vertices"
        )
    faces = np.concatenate([_faces(ply, path), _strips(ply, path)])
    if not 0 <= faces.min(initial=0) <= faces.max(initial=0) < len(vertices):
        row, column = np.argwhere((faces < 0) | (faces >= len(vertices)))[0]
        raise InputError(
            f"{path}: face {row} names vertex {faces[row, column]}, but there are "
            f"{len(vertices)}; copy or export it again"
        )
    colors = colors_of(vertex.data, path)
    if colors is None:
        colors = _texture_colors(ply, path, faces)
    return Mesh(vertices, grey(path, len(vertices)) if colors is None else colors, faces)


def grey(path: Path, count: int) -> np.ndarray:
    """Returns the colours [N, 3] of a file without any, and says so."""
    log.warning("%s: its vertices have no colours; all become grey", path)
    return np.full((count, 3), GREY, dtype=np.uint8)


def colors_of(rows: np.ndarray, path: Path) -> np.ndarray | None:
    """Reads the colours [N, 3] uint8 of structured rows; None without any.

    Raises:
        InputError: A channel is absent, or a colour is on no known scale.
    """
    warnings: list[str] = []
    colors = plys.read_colors(rows, path, warnings)
    for warning in warnings:
        log.warning("%s", warning)
    names = {name.lower() for name in rows.dtype.names or ()}
    if colors is None and names.intersection(plys.COLORS[0]):
        absent = next(name for name in plys.COLORS[0] if name not in names)
        listed = ", ".join(rows.dtype.names or ())
        raise InputError(f"{path}: its vertices have no {absent}, only {listed}; {EXPORT}")
    return colors


def read_ply(path: Path) -> PlyData:
    """Reads the elements of a PLY file.

    Raises:
        InputError: It is absent or broken.
    """
    remedy = "name, copy or export a scan's PLY file again"
    try:  # thirty times faster, but only triangles can be read so
        return plys.read_ply(path, remedy, TRIANGLES)
    except InputError:
        return plys.read_ply(path, remedy)


def vertices_of(ply: PlyData, path: Path) -> PlyElement:
    """Returns the element with the points."""
    if "vertex" not in ply:
        names = first_few([short(element.name) for element in ply.elements]) or "none"
        raise InputError(f"{path}: has no element vertex, only {names}; export it as a mesh")
    return ply["vertex"]


def positions_of(rows: np.ndarray, path: Path) -> np.ndarray:
    """Reads x, y and z of structured rows as [N, 3] float64."""
    names = {name.lower(): name for name in rows.dtype.names or ()}
    if absent := [axis for axis in "xyz" if axis not in names]:
        raise InputError(
            f"{path}: its vertices have no {absent[0]}, only {', '.join(names.values())}; export "
            "it with x, y, z"
        )
    try:
        columns = [np.asarray(rows[names[axis]]).astype(np.float64) for axis in "xyz"]
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{path}: x, y, z of its vertices must be single numbers, not lists; {EXPORT}"
        ) from error
    return np.stack(columns, axis=1)


def _faces(ply: PlyData, path: Path) -> np.ndarray:
    """Reads the faces as [F, 3] triangles; polygons are cut into fans."""
    if "face" not in ply or not len(ply["face"].data):
        return np.zeros((0, 3), dtype=np.int64)
    properties = [p.name for p in ply["face"].properties]
    name = next((name for name in CORNERS if name in properties), None)
    if name is None:
        raise InputError(
            f"{path}: its faces have no vertex_indices, only {', '.join(properties)}; {EXPORT}"
        )
    corners = ply["face"][name]
    if corners.dtype == object and all(c.dtype.kind in "iu" for c in corners):
        fans = [(c[0], c[i], c[i + 1]) for c in corners for i in range(1, len(c) - 1)]
        corners = np.array(fans, dtype=np.int64).reshape(-1, 3)
    if corners.ndim != 2 or corners.dtype.kind not in "iu":
        raise InputError(f"{path}: vertex_indices must be lists of vertex numbers; {EXPORT}")
    return corners.astype(np.int64)


def _strips(ply: PlyData, path: Path) -> np.ndarray:
    """Reads triangle strips as [F, 3] triangles; -1 ends a strip."""
    faces = [np.zeros((0, 3), dtype=np.int64)]
    if "tristrips" not in ply:
        return faces[0]
    element = ply["tristrips"]
    name = next((p.name for p in element.properties if p.name in CORNERS), None)
    strips = element[name] if name else [np.zeros(1)]
    for strip in strips:
        if strip.dtype.kind not in "iu":
            raise InputError(f"{path}: tristrips must be lists of vertex numbers; {EXPORT}")
        for part in np.split(strip.astype(np.int64), np.flatnonzero(strip == -1)):
            part = part[part != -1]
            if len(part) > 2:
                rows = np.stack([part[:-2], part[1:-1], part[2:]], axis=1)
                rows[1::2] = rows[1::2, ::-1]
                faces.append(rows)
    return np.concatenate(faces)


def _texture_colors(ply: PlyData, path: Path, faces: np.ndarray) -> np.ndarray | None:
    """Reads the vertices' colours [N, 3] from the texture that a comment names; None without."""
    names = [c.split(maxsplit=1) for c in ply.comments if c.lower().startswith("texturefile ")]
    vertex = ply["vertex"].data
    pair = next((p for p in COORDINATES if set(p) <= set(vertex.dtype.names or ())), None)
    at_corners = "face" in ply and "texcoord" in [p.name for p in ply["face"].properties]
    if not names or not (pair or at_corners):
        return None
    # The header's reader escapes what is not ASCII.
    name = re.sub(r"\\(x..|u....)", lambda code: chr(int(code[1][1:], 16)), names[0][1].strip())
    places = (path.parent / name, path.parent / re.split(r"[\\/]", name)[-1])
    image = next((image for place in places if (image := read_texture(place)) is not None), None)
    if image is None:
        log.warning("%s: its texture %s is not there", path, name)
        return None
    if pair:
        return sample_texture(image, np.stack([vertex[name] for name in pair], axis=1))
    uv = [np.reshape(c, (-1, 2)) for c in ply["face"]["texcoord"]]
    if any(len(c) != 3 for c in uv) or len(uv) != len(faces):
        return None
    corners = sample_texture(image, np.concatenate(uv))
    sums = np.stack([np.bincount(faces.ravel(), c, len(vertex)) for c in corners.T], axis=1)
    counts = np.bincount(faces.ravel(), minlength=len(vertex))[:, None]
    return np.where(counts, sums / np.maximum(counts, 1), GREY).round().astype(np.uint8)
