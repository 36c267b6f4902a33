"""Scans in any format: PLY, and others by their own packages."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import KDTree

from detailbase.scans.meshes import GREY, Mesh, colors_of, grey, positions_of, read_mesh
from detailbase.scans.textures import COARSE, fill_faces, sample_texture
from refer3d.runs.errors import InputError, reason
from refer3d.runs.files import decode_text

NO_FACES = np.zeros((0, 3), dtype=np.int64)
Reader = Callable[[Path], Mesh]
NAMES = {
    3: "xyz",
    4: ("x", "y", "z", "intensity"),
    6: ("x", "y", "z", "red", "green", "blue"),
    7: ("x", "y", "z", "intensity", "red", "green", "blue"),
    9: ("x", "y", "z", "red", "green", "blue", "nx", "ny", "nz"),
}
"""Meaning of the columns of tables without a header, by their number."""
LAS_RECORDS = ((100, 54), (243, 60))
"""Places of the numbers of records and, since LAS 1.4, of extended ones, and their least bytes."""
ALIASES = {"r": "red", "g": "green", "b": "blue"}


def import_package(name: str, field: str, otherwise: str) -> Any:
    """Imports the package of a format.

    Args:
        name: The package.
        field: What needs it: a file or an option.
        otherwise: What to do without it.

    Raises:
        InputError: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"{field} needs the package {name}, which is not installed; run pip install "
            f"'refer3d[scans]', or {otherwise}"
        ) from error


def _import(name: str, path: Path) -> Any:
    return import_package(name, f"{path}: {path.suffix}", "export the scan as PLY")


def _reader(read: Reader) -> Reader:
    """Turns a package's complaint about a file into an error in one line."""

    @wraps(read)
    def read_or_refuse(path: Path) -> Mesh:
        if not path.is_file():
            raise InputError(f"{path}: no such file; name or copy the file of a scan")
        try:
            return read(path)
        except InputError:
            raise
        except Exception as error:  # each package has its own
            raise InputError(
                f"{path}: cannot be read as {path.suffix[1:].upper()} ({reason(error)}); copy it "
                "again, or export it as PLY"
            ) from error

    return read_or_refuse


@_reader
def read_surface(path: Path) -> Mesh:
    """Reads an OBJ, glTF, STL or OFF file with trimesh; colours come from textures, too.

    Large faces are filled with points, because the network sees points only. An OBJ file's rows are
    its ``v`` lines, whatever trimesh makes of them.
    """
    trimesh = _import("trimesh", path)
    scene = trimesh.load_scene(path, process=False)
    parts = []
    for name in scene.graph.nodes_geometry:
        matrix, key = scene.graph[name]
        shape = scene.geometry[key].copy().apply_transform(matrix)
        parts.append(shape)
    if not sum(len(part.vertices) for part in parts):
        raise InputError(f"{path}: has no vertices; scan or copy it again")
    vertices = np.concatenate([np.asarray(part.vertices, dtype=np.float64) for part in parts])
    extent = float(np.ptp(vertices, axis=0).max())
    colors, faces, samples, start = [], [NO_FACES], [], 0
    for part in parts:
        triangles = np.asarray(getattr(part, "faces", NO_FACES), dtype=np.int64).reshape(-1, 3)
        chosen, weights = fill_faces(np.asarray(part.vertices), triangles, COARSE * extent)
        places = np.einsum("mk,mkd->md", weights, np.asarray(part.vertices)[triangles[chosen]])
        own, between = _surface_colors(part, triangles, chosen, weights)
        colors.append(own)
        samples.append((places, between))
        faces.append(triangles + start)
        start += len(part.vertices)
    shades = np.concatenate(
        [
            np.full((len(part.vertices), 3), GREY, np.uint8) if own is None else own
            for part, own in zip(parts, colors, strict=True)
        ]
    )
    if path.suffix.lower() == ".off" and (listed := _off_colors(path, len(vertices))) is not None:
        shades = listed
    elif all(own is None for own in colors):
        shades = grey(path, len(vertices))
    corners = np.concatenate(faces)
    more = np.concatenate([s[0] for s in samples]), np.concatenate([s[1] for s in samples])
    if path.suffix.lower() == ".obj":
        text = decode_text(path.read_bytes())
        rows = np.array(
            [v.split()[:3] for v in re.findall(r"^[ \t]*v[ \t]+(.*)", text, re.M)], float
        )
        if len(rows) == len(vertices) and np.allclose(rows, vertices):
            return Mesh(vertices, shades, corners, samples=more)
        row_of = np.asarray(KDTree(rows).query(vertices)[1])
        own = shades[np.asarray(KDTree(vertices).query(rows)[1])]
        return Mesh(rows, own, row_of[corners], samples=more)
    return Mesh(vertices, shades, corners, _up(path), more)


def _off_colors(path: Path, count: int) -> np.ndarray | None:
    """Reads the colours of a COFF file's vertices, which trimesh leaves out; None without any."""
    text = re.sub(r"#.*", "", decode_text(path.read_bytes()))
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines[0].lstrip().upper().startswith("COFF"):
        return None
    start = 2 if len(lines[0].split()) == 1 else 1  # the counts may stand behind the word
    words = [line.split()[3:6] for line in lines[start : start + count]]
    kind = "f8" if any("." in word for row in words for word in row) else "i8"
    names = ("red", "green", "blue")
    return colors_of(np.array([tuple(row) for row in words], [(n, kind) for n in names]), path)


def _up(path: Path) -> str:
    """Returns the vertical axis that a format prescribes; only glTF does."""
    return "y" if path.suffix.lower() in (".glb", ".gltf") else "z"


def _surface_colors(
    part: Any, faces: np.ndarray, chosen: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray | None, np.ndarray]:
    """Reads a geometry's colours at its vertices, None without any, and at points on its faces."""
    visual = getattr(part, "visual", None)
    if visual is None:  # a cloud
        own = np.asarray(part.colors)[:, :3] if len(getattr(part, "colors", ())) else None
        return own, np.zeros((0, 3), dtype=np.uint8)
    material = getattr(visual, "material", None)
    image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    uv = getattr(visual, "uv", None)
    if image is not None and uv is not None and len(uv) == len(part.vertices):
        pixels, uv = np.asarray(image.convert("RGB")), np.asarray(uv)
        between = np.einsum("mk,mkd->md", weights, uv[faces[chosen]])
        return sample_texture(pixels, uv), sample_texture(pixels, between)
    if visual.kind == "face":
        shades = np.asarray(visual.face_colors)[:, :3].astype(np.float64)
        flat = faces.ravel()
        sums = [np.bincount(flat, c.repeat(3), len(part.vertices)) for c in shades.T]
        counts = np.bincount(flat, minlength=len(part.vertices)).clip(min=1)
        own = (np.stack(sums, axis=1) / counts[:, None]).round().astype(np.uint8)
        return own, shades[chosen].astype(np.uint8)
    if visual.kind == "vertex":
        own = np.asarray(visual.vertex_colors)[:, :3].astype(np.uint8)
    elif material is not None:
        own = np.tile(np.asarray(material.main_color)[:3].astype(np.uint8), (len(part.vertices), 1))
    else:
        return None, np.full((len(chosen), 3), GREY, dtype=np.uint8)
    return own, np.einsum("mk,mkd->md", weights, own[faces[chosen]]).round().astype(np.uint8)


@_reader
def read_las(path: Path) -> Mesh:
    """Reads a LAS or LAZ cloud with laspy."""
    _check_las_records(path)
    las = _import("laspy", path).read(path)
    vertices = np.asarray(las.xyz, dtype=np.float64)
    if "red" not in las.point_format.dimension_names:
        return Mesh(vertices, grey(path, len(vertices)), NO_FACES)
    columns = {name: np.asarray(las[name]) for name in ("red", "green", "blue")}
    return _cloud(path, vertices, columns)


def _check_las_records(path: Path) -> None:
    """Refuses a header that counts more records than the file holds: laspy would read them all.

    Raises:
        InputError: It does.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(375)
    for place, least in LAS_RECORDS:
        count = int.from_bytes(header[place : place + 4], "little")
        is_there = place == LAS_RECORDS[0][0] or header[24:26] == b"\1\4"
        if is_there and count * least > size:
            raise InputError(
                f"{path}: its header counts {count} records, but the file has {size} bytes; copy "
                "it again, or export it as PLY"
            )


@_reader
def read_e57(path: Path) -> Mesh:
    """Reads an E57 file's scans with pye57, in their common frame; rows count its valid points."""
    file = _import("pye57", path).E57(str(path))
    scans = [
        file.read_scan(index, ignore_missing_fields=True, colors=True)
        for index in range(file.scan_count)
    ]
    places = [np.stack([scan[f"cartesian{a}"] for a in "XYZ"], axis=1) for scan in scans]
    keys = {name: f"color{name.title()}" for name in ("red", "green", "blue")}
    parts = []
    for scan, xyz in zip(scans, places, strict=True):
        has_colors = all(key in scan for key in keys.values())
        columns = {name: np.asarray(scan[key]) for name, key in keys.items()} if has_colors else {}
        parts.append(_cloud(path, xyz, columns))
    colors = np.concatenate([part.colors for part in parts])
    return Mesh(np.concatenate(places).astype(np.float64), colors, NO_FACES)


@_reader
def read_pcd(path: Path) -> Mesh:
    """Reads a PCD cloud with pypcd4, which makes a column of each number of a point."""
    with path.open("rb") as file:
        counts = re.search(rb"^COUNT([ \d]+)", file.read(4096), re.MULTILINE)
    if counts and sum(map(int, counts[1].split())) > path.stat().st_size:
        raise InputError(
            f"{path}: COUNT: expected the numbers of each field, got more than the file has bytes; "
            "copy it again, or export it as PLY"
        )
    rows = _import("pypcd4", path).PointCloud.from_path(path).pc_data
    return _table(path, rows)


@_reader
def read_table(path: Path) -> Mesh:
    """Reads a table of points: XYZ, CSV, PTS or TXT, with or without a header.

    Columns without names are x y z, x y z red green blue, x y z intensity red green blue, or x y z
    red green blue and a normal. Columns are parted by blanks, commas or semicolons.
    """
    lines = decode_text(path.read_bytes()).splitlines()
    while lines and (not lines[0].strip() or re.fullmatch(r"\s*\d+\s*", lines[0])):
        lines.pop(0)  # PTS begins with the number of points
    first = next((line for line in lines if re.match(r"[\s\d+.-]", line)), "")
    mark = ";" if ";" in first else "," if "," in first else None
    decimal = "," if mark == ";" else "."
    header = lines[0].strip().lstrip("/#").strip() if lines else ""
    names = [
        ALIASES.get(n, n) for n in re.split(r"[\s,;]+", re.sub(r'["\[\]]', "", header.lower()))
    ]
    is_header = bool(re.match(r"[a-z\"]", header.lower()))
    body = [
        line.replace(decimal, ".") for line in lines[is_header:] if re.match(r"\s*[\d+.-]", line)
    ]
    values = np.loadtxt(body, delimiter=mark, ndmin=2) if body else np.zeros((0, 3))
    if not is_header:
        known = NAMES.get(values.shape[1])
        if known is None:
            raise InputError(
                f"{path}: has {values.shape[1]} columns without names; give it a line with their "
                "names, as x y z red green blue"
            )
        names = list(known)
        if (
            len(names) == 6
            and (np.abs(values[:, 3:]).max(initial=0) <= 1)
            and values[:, 3:].min() < 0
        ):
            names[3:] = "nx", "ny", "nz"
    rows = np.empty(len(values), dtype=[(name, "f8") for name in names[: values.shape[1]]])
    for name, column in zip(rows.dtype.names or (), values.T, strict=False):
        rows[name] = column
    return _table(path, rows)


def _table(path: Path, rows: np.ndarray) -> Mesh:
    """Reads a structured array."""
    vertices = positions_of(rows, path)
    colors = colors_of(rows, path)
    return Mesh(vertices, grey(path, len(rows)) if colors is None else colors, NO_FACES)


def _cloud(path: Path, vertices: np.ndarray, columns: dict[str, np.ndarray]) -> Mesh:
    rows = np.empty(len(vertices), dtype=[(name, c.dtype) for name, c in columns.items()])
    for name, column in columns.items():
        rows[name] = column
    colors = colors_of(rows, path) if columns else None
    return Mesh(vertices, grey(path, len(vertices)) if colors is None else colors, NO_FACES)


READERS: dict[str, Reader] = {
    **dict.fromkeys((".obj", ".glb", ".gltf", ".stl", ".off"), read_surface),
    **dict.fromkeys((".las", ".laz"), read_las),
    ".e57": read_e57,
    ".pcd": read_pcd,
    **dict.fromkeys((".xyz", ".csv", ".pts", ".txt", ".asc", ".xyzrgb"), read_table),
}
"""Readers of formats by their suffix; every other file is read as PLY."""


def read_file(path: Path) -> Mesh:
    """Reads a scan in any format; a PLY file may have any name.

    Points of clouds that are not finite, as of a camera's empty pixels, are kept.

    Raises:
        InputError: The file is absent or broken, or its format needs a package.
    """
    if path.is_dir():
        raise InputError(f"{path}: expected the file of a scan, got a folder; name a file in it")
    read = READERS.get(path.suffix.lower(), read_mesh)
    if path.is_file():
        with path.open("rb") as file:
            read = read_mesh if file.read(3) == b"ply" else read
    mesh = read(path)
    if not np.isfinite(mesh.vertices).all(axis=1).any():
        raise InputError(f"{path}: has no points; scan or copy it again")
    return mesh
