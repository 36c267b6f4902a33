"""Scans for inference: files of any program, cleaned, upright and in metres."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from detailbase.config import UNITS, UPS
from detailbase.ops import cloud_superpoints, mesh_superpoints
from detailbase.scans.clouds import LARGEST, NONE, Cloud
from detailbase.scans.formats import read_file
from detailbase.scans.meshes import Mesh
from detailbase.scans.textures import COARSE, fill_faces
from refer3d.runs.errors import InputError

log = logging.getLogger(__name__)

SMALLEST = 0.1
"""Least extent of a scan in metres."""
ROOM = 2.5
"""Least extent of a room in metres."""
CUBE, CROWDED = 0.04, 2.0
"""Side of a cube in metres, and the mean number of points in one from which on a room is thinned to
one point per cube. ScanNet's meshes have 1.2. Superpoints of denser scans would differ from those
that networks were trained with. Chosen on the package's room, subdivided and sampled: with 2 to 20
times its points, the masks are as those of the original from 0.04 on."""
WIDE = 0.15
"""Side of a face in metres above which a room's mesh is coarse."""
OUTER = 0.005
"""Share of the points beyond each end of the extent, so that stray ones do not decide it."""
STRAY, AROUND, FEW = 3.0, 32, 0.1
"""A point is stray if its fourth neighbour is so many times as far as the median of so many points
around it; if more than this share of the points are, the scan is sparse and none is."""
WHOLE = 0.9
"""Least share of the points in faces of a mesh; a more broken one is cut as a cloud."""


class Scan(NamedTuple):
    """A scan as the network sees it and as its file has it."""

    cloud: Cloud
    """Input of the network: without stray points, at most as dense as the scans of training, and
    turned about the vertical so that it does not depend on the file's axes."""
    owner: np.ndarray
    """[N] the cloud's point for each of the kept points."""
    vertices: np.ndarray
    """[N, 3] float64, the kept points in the file's unit and axes."""
    colors: np.ndarray
    """[N, 3] uint8."""
    rows: np.ndarray
    """[N] indices of the kept points in the file."""
    total: int
    """Number of points in the file."""
    faces: np.ndarray
    """[F, 3] indices of kept points; F is 0 for a cloud, or where points are left out at random."""
    upright: np.ndarray
    """[3, 3], from the file's axes and unit to metres with z up."""


def read_scan_file(
    path: Path,
    unit: str = "m",
    up: str = "auto",
    max_points: int = 1_000_000,
    rule: Literal["points", "area", "scannet"] = "points",
    seed: int = 0,
) -> Scan:
    """Reads a scan, cleans it, and computes its superpoints.

    Points at one place become one, rooms denser than ScanNet's are thinned to their mean points,
    and stray points are left out. With the rule ``points``, the result depends neither on faces nor
    on the order of rows, and little on density, noise and the file's axes.

    Args:
        path: A file of :mod:`detailbase.scans.formats`.
        unit: Unit of the file, one of ``UNITS``.
        up: Vertical axis of the file, one of ``UPS``; ``auto`` is y for glTF, else z.
        max_points: Number of points that the network sees, and number that are kept to be answered
            for; these are chosen at random.
        rule: ``points`` takes :func:`cut_points`, the others are rules of
            :func:`~detailbase.ops.superpoints.mesh_superpoints` for whole meshes.
        seed: Seed of that choice.

    Raises:
        InputError: The file is absent or broken, or its size makes no sense in the unit.
    """
    mesh = read_file(path)
    total = len(mesh.vertices)
    known = np.flatnonzero(np.isfinite(mesh.vertices).all(axis=1))
    points, colors = mesh.vertices[known], mesh.colors[known]
    if rule == "points":
        points, colors = _with_samples(mesh, points, colors, UNITS[unit])
    owner, rgb = _distinct_rows(points), colors / 127.5 - 1
    xyz = points[np.unique(owner, return_index=True)[1]]
    axes = np.array(UPS[mesh.up if up == "auto" else up], dtype=np.float64)
    upright = UNITS[unit] * axes
    xyz = (xyz - np.median(xyz, axis=0)) @ upright.T
    low, high = np.quantile(xyz, (OUTER, 1 - OUTER), axis=0)
    extent = float((high - low).max())
    if not SMALLEST <= extent <= LARGEST:
        raise InputError(_wrong_extent(path, extent, unit))
    xyz = xyz @ heading(xyz, extent / 60)
    cell = _thin(xyz, extent, max_points)
    owner, xyz = cell[owner], mean_by(cell, xyz)
    rgb = mean_by(owner, rgb)
    keep = ~find_strays(xyz)
    number = np.where(keep, keep.cumsum() - 1, -1)
    owner, xyz, rgb = number[owner], xyz[keep], rgb[keep]
    owners = owner[: len(known)]
    rows, owner = known[owners >= 0], owners[owners >= 0]
    if len(rows) < total:
        log.info("%s: %d stray or empty points are left out", path, total - len(rows))
    positions, shades = (torch.from_numpy(v.astype(np.float32)) for v in (xyz - xyz.mean(0), rgb))
    superpoints = None
    if rule != "points":
        superpoints = _cut_mesh(positions, _clean_faces(owners[mesh.faces]), rule)
    if superpoints is None:
        superpoints = cut_points(positions, shades)
    unlabelled = torch.full((len(positions),), NONE)
    cloud = Cloud(positions, shades, superpoints, unlabelled, unlabelled)
    faces = mesh.faces
    if len(rows) > max_points:
        left_out = len(rows) - max_points
        log.warning("%s: has %d points; %d are left out (--max_points)", path, total, left_out)
        chosen = np.sort(np.random.default_rng(seed).choice(len(rows), max_points, replace=False))
        rows, owner, faces = rows[chosen], owner[chosen], faces[:0]
    points = mesh.vertices[rows], mesh.colors[rows]
    return Scan(cloud, owner, *points, rows, total, _faces_of(rows, faces, total), upright)


def _faces_of(rows: np.ndarray, faces: np.ndarray, total: int) -> np.ndarray:  # [F, 3]
    """Numbers faces of ``total`` vertices by the rows [N] that are kept; others are left out."""
    number = np.full(total, -1)
    number[rows] = np.arange(len(rows))
    faces = number[faces]
    return faces[(faces >= 0).all(axis=1)]


def _with_samples(
    mesh: Mesh, points: np.ndarray, colors: np.ndarray, metres: float
) -> tuple[np.ndarray, np.ndarray]:
    """Adds points on the faces of a coarse mesh behind its vertices [N, 3] and colours [N, 3]."""
    samples = mesh.samples
    if samples is None:
        low, high = np.quantile(points, (OUTER, 1 - OUTER), axis=0)
        extent = float((high - low).max()) * metres
        coarse = (WIDE if extent >= ROOM else COARSE * extent) / metres
        chosen, weights = fill_faces(points, mesh.faces, coarse)
        places, shades = (
            np.einsum("mk,mkd->md", weights, values[mesh.faces[chosen]])
            for values in (points, colors)
        )
        samples = places, shades
    return np.concatenate([points, samples[0]]), np.concatenate([colors, samples[1]])


def cut_points(
    xyz: Tensor,  # [N, 3]
    rgb: Tensor,  # [N, 3]
) -> Tensor:  # [N]
    """Computes superpoints that do not depend on the order of the points.

    Args:
        xyz: Metres.
        rgb: Colours, -1 to 1.
    """
    order = torch.from_numpy(np.lexsort(xyz.numpy().T))
    labels = torch.empty(len(xyz), dtype=torch.int64)
    labels[order] = cloud_superpoints(xyz[order], rgb[order])
    return labels


def _cut_mesh(
    xyz: Tensor,  # [N, 3]
    faces: np.ndarray,  # [F, 3]
    rule: Literal["area", "scannet"],
) -> Tensor | None:  # [N]
    """Computes the superpoints of a mesh, None of one that is too broken.

    A vertex in no face, which would be a superpoint of its own, joins the nearest one's.
    """
    used = np.unique(faces)
    if len(used) < WHOLE * len(xyz):
        return None
    superpoints = mesh_superpoints(xyz, torch.from_numpy(faces), rule=rule)
    if len(used) < len(xyz):
        nearest = KDTree(xyz[used]).query(xyz)[1]
        superpoints = superpoints[used[nearest]].unique(return_inverse=True)[1]
    return superpoints


def heading(xyz: np.ndarray, side: float) -> np.ndarray:  # [N, 3] -> [3, 3]
    """Finds the turn about the vertical that brings the walls along the axes.

    Of the four turns that do, it takes the one after which the third moment of the places points
    along +x. Cubes make it independent of density; as they lie differently in a turned scan, the
    search is repeated in the turned frame, where they lie alike. Thinly filled cubes count less,
    and those far outside not at all.

    Args:
        xyz: Points, z up.
        side: Side of the cubes.

    Returns:
        [3, 3] that is multiplied from the right.
    """
    turn = np.eye(3)
    for _ in range(4):
        turned = xyz @ turn
        cubes = cube_indices(turned, side)
        places, weights = mean_by(cubes, turned), np.bincount(cubes)
        places = places - np.median(places, axis=0)
        radius = np.linalg.norm(places[:, :2], axis=1)
        is_near = radius <= 4 * np.median(radius)
        places, weights = places[is_near], (weights / np.median(weights)).clip(max=1)[is_near]
        places = places - np.average(places, axis=0, weights=weights)
        _, near = KDTree(places).query(places, min(9, len(places)))
        around = places[near] - places[near].mean(axis=1, keepdims=True)
        normals = np.linalg.eigh(np.swapaxes(around, 1, 2) @ around)[1][:, :, 0]
        # The fourth power of a direction is that of each of its quarter turns.
        walls = np.angle(weights @ (normals[:, 0] + 1j * normals[:, 1]) ** 4) / 4
        x, y = (weights * (places**2).sum(axis=1)) @ places[:, :2]
        quarter = np.round((np.arctan2(y, x) - walls) / (np.pi / 2)) * (np.pi / 2)
        cos, sin = np.cos(walls + quarter), np.sin(walls + quarter)
        turn = turn @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    return turn


def find_strays(xyz: np.ndarray) -> np.ndarray:  # [N, 3] -> [N] bool
    """Finds points that lie much farther from others than the points around them do."""
    strays = np.zeros(len(xyz), dtype=bool)
    if len(xyz) <= AROUND:
        return strays
    tree = KDTree(xyz)
    reach = tree.query(xyz, 5)[0][:, 4]
    far = np.flatnonzero(reach > 2 * np.median(reach))
    around = np.asarray(tree.query(xyz[far], AROUND)[1])
    strays[far] = reach[far] > STRAY * np.median(reach[around[:, 1:]], axis=1)
    return strays & (strays.mean() <= FEW)


def cube_indices(xyz: np.ndarray, side: float) -> np.ndarray:  # [N, 3] -> [N]
    """Numbers the cubes that points lie in, from 0 without gaps; one has a corner at 0."""
    far = 1 << 20  # three coordinates of 21 bits make one number; beyond lie only strays
    x, y, z = np.floor(xyz / side).clip(-far, far - 1).astype(np.int64).T + far
    return np.unique(x << 42 | y << 21 | z, return_inverse=True)[1]


def mean_by(group: np.ndarray, values: np.ndarray) -> np.ndarray:  # [N], [N, C] -> [G, C]
    """Averages the rows of each group."""
    sums = [np.bincount(group, weights=column) for column in values.T]
    return np.stack(sums, axis=1) / np.bincount(group)[:, None]


def _distinct_rows(rows: np.ndarray) -> np.ndarray:  # [N, 3] -> [N]
    """Numbers rows that are equal alike, from 0 without gaps, in the order of the first ones."""
    order = np.lexsort(rows.T)
    is_new = np.ones(len(rows), dtype=bool)
    is_new[1:] = (rows[order[1:]] != rows[order[:-1]]).any(axis=1)
    group = np.empty(len(rows), dtype=np.int64)
    group[order] = is_new.cumsum() - 1
    firsts = order[is_new]  # lexsort is stable: each group's first row
    number = np.empty(len(firsts), dtype=np.int64)
    number[np.argsort(firsts)] = np.arange(len(firsts))
    return number[group]


def _thin(xyz: np.ndarray, extent: float, max_points: int) -> np.ndarray:  # [N, 3] -> [N]
    """Numbers the points that count as one: those of a cube in a crowded room."""
    owner, side = np.arange(len(xyz)), CUBE
    cubes = cube_indices(xyz, side)
    if extent >= ROOM and len(xyz) > CROWDED * (cubes.max() + 1):
        owner = cubes
    while owner.max() >= max_points:
        owner, side = cube_indices(xyz, side), side * 1.25
    return owner


def _clean_faces(faces: np.ndarray) -> np.ndarray:  # [F, 3] -> [F', 3]
    """Leaves out faces without an area, with a stray corner, and second copies."""
    faces = faces[(faces != np.roll(faces, 1, axis=1)).all(axis=1) & (faces >= 0).all(axis=1)]
    return faces[np.unique(_distinct_rows(np.sort(faces, axis=1)), return_index=True)[1]]


def _wrong_extent(path: Path, extent: float, unit: str) -> str:
    """Describes an implausible extent, with the unit that would fit."""
    if not extent:
        return f"{path}: all its points coincide; scan or export it again"
    fits = [
        other
        for other, metres in UNITS.items()
        if SMALLEST <= extent / UNITS[unit] * metres <= LARGEST
    ]
    advice = f"give --unit {' or '.join(fits)}" if fits else "give it in metres"
    return (
        f"{path}: reaches over {extent:.3g} m if its unit is {unit}, expected {SMALLEST:g} to "
        f"{LARGEST:g}; {advice}"
    )
