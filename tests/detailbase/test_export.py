"""The marked part of a scan, read by other libraries."""

import io
import sys

import numpy as np
import pytest
import torch
from plyfile import PlyData

from detailbase.config import UNITS, UPS
from detailbase.scans.clouds import Cloud
from detailbase.scans.export import WRITERS, installed_writers, require_writer, select_part
from detailbase.scans.scan import Scan
from refer3d.runs.errors import InputError
from tests.errors import raises

FAR = np.array([512_345.25, 5_412_345.5, 312.125])
"""Geographic coordinates, which 32 bits do not hold to the centimetre."""


def grid(faces=True, up="z", unit="m", far=FAR):
    """A scan of 5×4 points 0.25 m apart, two triangles to a square."""
    x, y = np.meshgrid(np.arange(5.0), np.arange(4.0), indexing="ij")
    metres = np.stack([x.ravel(), y.ravel(), (x * y).ravel()], axis=1) / 4
    upright = UNITS[unit] * np.array(UPS[up], dtype=float)
    vertices = metres @ np.linalg.inv(upright).T + far
    corner = np.arange(20).reshape(5, 4)[:-1, :-1].ravel()
    halves = [[corner, corner + 4, corner + 1], [corner + 4, corner + 5, corner + 1]]
    triangles = np.concatenate([np.stack(half, axis=1) for half in halves])
    colors = np.random.default_rng(0).integers(0, 256, (20, 3)).astype(np.uint8)
    row, none = torch.arange(20), torch.full((20,), -100)
    cloud = Cloud(torch.zeros(20, 3), torch.zeros(20, 3), row * 0, none, none)
    return Scan(cloud, row.numpy(), vertices, colors, row.numpy(), 20,
                triangles if faces else triangles[:0], upright)  # fmt: skip


MASK = (np.arange(20) < 8) | (np.arange(20) == 19)
"""The corners of a row of squares, and of none the other."""


def written(scan, ending, mask=MASK):
    file = io.BytesIO()
    WRITERS[ending](file, select_part(scan, mask))
    return io.BytesIO(file.getvalue())


def test_faces_are_kept_whose_corners_are_all_marked():
    scan = grid()
    part = select_part(scan, MASK)
    inside = scan.faces[(scan.faces < 8).all(axis=1)]
    np.testing.assert_array_equal(part.vertices[part.faces], scan.vertices[inside])
    np.testing.assert_array_equal(part.vertices, scan.vertices[:8])
    assert len(part.faces) == 6
    points = select_part(grid(faces=False), MASK)
    np.testing.assert_array_equal(points.vertices, scan.vertices[MASK])
    few = select_part(scan, np.arange(20) < 2)  # no face
    assert (len(few.vertices), len(few.faces)) == (2, 0)


@pytest.mark.parametrize("faces", [True, False])
def test_ply_is_exact(faces):
    scan = grid(faces)
    ply = PlyData.read(written(scan, "ply"))
    rows = np.arange(8) if faces else np.flatnonzero(MASK)
    for axis, name in enumerate("xyz"):
        np.testing.assert_array_equal(ply["vertex"][name], scan.vertices[rows, axis])
    for channel, name in enumerate(("red", "green", "blue")):
        np.testing.assert_array_equal(ply["vertex"][name], scan.colors[rows, channel])
    assert ("face" in ply) == faces
    near = grid(faces, far=0.0)
    assert PlyData.read(written(near, "ply"))["vertex"]["x"].dtype == np.float32


@pytest.mark.parametrize("faces", [True, False])
@pytest.mark.parametrize("ending", ["ply", "obj"])
def test_trimesh_reads_ply_and_obj(faces, ending):
    trimesh = pytest.importorskip("trimesh")
    scan = grid(faces)
    (shape,) = trimesh.load_scene(
        written(scan, ending), file_type=ending, process=False
    ).geometry.values()
    expected = select_part(scan, MASK)
    # trimesh's OBJ has 8 decimals.
    np.testing.assert_allclose(shape.vertices, expected.vertices, rtol=0, atol=1e-8)
    colors = shape.visual.vertex_colors if faces else shape.colors
    np.testing.assert_array_equal(colors[:, :3], expected.colors)
    if faces:
        np.testing.assert_array_equal(shape.faces, expected.faces)


@pytest.mark.parametrize("faces", [True, False])
@pytest.mark.parametrize(("up", "unit"), [("z", "m"), ("y", "mm"), ("-x", "cm")])
def test_gltf_is_in_metres_with_y_up(faces, up, unit):
    trimesh = pytest.importorskip("trimesh")
    scan = grid(faces, up, unit)
    scene = trimesh.load_scene(written(scan, "glb"), file_type="glb", process=False)
    (name,) = scene.graph.nodes_geometry
    matrix, key = scene.graph[name]
    shape = scene.geometry[key]
    expected = select_part(scan, MASK)
    metres = expected.vertices @ scan.upright.T
    places = trimesh.transform_points(shape.vertices, matrix)[:, [0, 2, 1]] * [1, -1, 1]
    # Half a step of float32 at 0.5 m is 3e-8, of float64 at 5e6 m 5e-10.
    np.testing.assert_allclose(places, metres, rtol=0, atol=5e-8)
    shades = expected.colors[:, :1] / 255
    linear = np.where(shades <= 0.04045, shades / 12.92, ((shades + 0.055) / 1.055) ** 2.4)
    colors = shape.visual.vertex_colors if faces else shape.colors
    np.testing.assert_allclose(colors[:, :1] / 255, linear, atol=0.5 / 255 + 1e-9)
    if faces:  # not turned inside out
        normals = np.cross(*np.diff(metres[expected.faces], axis=1).swapaxes(0, 1))
        turned = trimesh.transform_points(shape.vertices, matrix)[shape.faces]
        found = np.cross(*np.diff(turned, axis=1).swapaxes(0, 1))[:, [0, 2, 1]] * [1, -1, 1]
        np.testing.assert_allclose(found, normals, atol=1e-6)


@pytest.mark.parametrize("ending", ["las", "laz"])
def test_laspy_reads_the_points(ending):
    laspy = pytest.importorskip("laspy")
    scan = grid()
    las = laspy.read(written(scan, ending))
    expected = select_part(scan, MASK)
    np.testing.assert_allclose(las.xyz, expected.vertices, rtol=0, atol=1e-8)
    np.testing.assert_array_equal(np.asarray(las.red) >> 8, expected.colors[:, 0])
    np.testing.assert_array_equal(np.asarray(las.blue) & 255, expected.colors[:, 2])
    one = laspy.read(written(scan, ending, np.arange(20) == 7))
    np.testing.assert_allclose(one.xyz, scan.vertices[7:8], rtol=0, atol=1e-8)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "laspy", None)
    with raises(InputError, "--export: las", "refer3d[scans]", "ply"):
        require_writer("las")
    require_writer("ply")


def test_installed_formats_are_offered(monkeypatch):
    from detailbase.scans import export

    assert {*installed_writers()} >= {"ply"}
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    assert installed_writers() == ["ply"]
