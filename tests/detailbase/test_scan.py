import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from detailbase.ops import mesh_superpoints
from detailbase.scans.meshes import read_mesh
from detailbase.scans.scan import UPS, read_scan_file
from refer3d.runs.errors import InputError


def write_box(path, scale=1.0, faces=None, kind="f4", offset=(0, 0, 0)):
    """A floor of 2 x 3 m with a step of half a metre, in some unit."""
    x, y = np.meshgrid(np.linspace(0, 2, 21), np.linspace(0, 3, 31), indexing="ij")
    z = np.where(x > 1, 0.5, 0.0)
    points = (np.stack([x, y, z], axis=-1).reshape(-1, 3) * scale + offset).astype(kind)
    vertices = np.empty(len(points), dtype=[(axis, kind) for axis in "xyz"])
    for index, axis in enumerate("xyz"):
        vertices[axis] = points[:, index]
    elements = [PlyElement.describe(vertices, "vertex")]
    if faces != 0:
        corner = np.arange(21 * 31).reshape(21, 31)
        a, b, c, d = (corner[i : 20 + i, j : 30 + j].ravel() for i in (0, 1) for j in (0, 1))
        triangles = np.concatenate([np.stack([a, c, b], axis=1), np.stack([b, c, d], axis=1)])
        rows = np.empty(len(triangles[:faces]), dtype=[("vertex_indices", "i4", (3,))])
        rows["vertex_indices"] = triangles[:faces]
        elements.append(PlyElement.describe(rows, "face"))
    PlyData(elements).write(str(path))
    return points


@pytest.mark.parametrize("faces", [None, 0], ids=["mesh", "cloud"])
def test_superpoints_follow_the_surface(tmp_path, faces):
    path = tmp_path / "scan.ply"
    points = write_box(path, faces=faces)
    scan = read_scan_file(path)
    assert scan.total == len(scan.rows) == len(points)
    assert scan.cloud.xyz.mean(dim=0).abs().max() < 1e-5
    low, high = (set(scan.cloud.superpoints[points[:, 2] == z].tolist()) for z in (0, 0.5))
    assert len(low) < 4
    assert len(high) < 4


def test_units_agree(tmp_path):
    clouds = []
    for unit, scale in (("m", 1), ("cm", 100), ("mm", 1000)):
        path = tmp_path / f"{unit}.ply"
        write_box(path, scale)
        clouds.append(read_scan_file(path, unit).cloud)
    for cloud in clouds[1:]:
        torch.testing.assert_close(cloud.xyz, clouds[0].xyz, rtol=1e-5, atol=1e-5)
        assert torch.equal(cloud.superpoints, clouds[0].superpoints)


@pytest.mark.parametrize("up", UPS)
def test_up_becomes_z(tmp_path, up):
    path = tmp_path / "scan.ply"
    points = write_box(path)
    rotation = np.array(UPS[up], dtype=float)
    assert np.isclose(np.linalg.det(rotation), 1)
    along = points[:, "xyz".index(up[-1])] * (-1 if up.startswith("-") else 1)
    scan = read_scan_file(path, up=up)
    expected = torch.from_numpy(along - along.mean())
    torch.testing.assert_close(scan.cloud.xyz[:, 2], expected, rtol=1e-5, atol=1e-5)


def test_large_scans_are_thinned_the_same_way_each_time(tmp_path):
    path = tmp_path / "scan.ply"
    points = write_box(path)
    one, other = (read_scan_file(path, max_points=100) for _ in range(2))
    assert len(one.cloud) == 100
    assert one.total == len(points)
    assert np.array_equal(one.rows, other.rows)
    assert np.array_equal(one.vertices, points[one.rows])


@pytest.mark.parametrize(
    ("scale", "unit", "advice"),
    [
        (1000, "m", "give --unit cm or mm"),
        (1, "mm", "give --unit m$"),
        (1e6, "m", "give it in metres"),
        (0, "m", "export it again"),
    ],
)
def test_a_wrong_unit_is_seen(tmp_path, scale, unit, advice):
    path = tmp_path / "scan.ply"
    write_box(path, scale)
    with pytest.raises(InputError, match=rf"scan\.ply: .*{advice}"):
        read_scan_file(path, unit)


def test_places_on_the_globe_keep_their_digits(tmp_path):
    points = write_box(tmp_path / "near.ply", kind="f8")
    far = np.array([500_000.0, 4_649_776, 200])
    write_box(tmp_path / "far.ply", kind="f8", offset=far)
    near, moved = (read_scan_file(tmp_path / f"{name}.ply") for name in ("near", "far"))
    torch.testing.assert_close(moved.cloud.xyz, near.cloud.xyz, rtol=0, atol=1e-6)
    assert torch.equal(moved.cloud.superpoints, near.cloud.superpoints)
    assert np.array_equal(moved.vertices, points + far)


def test_a_few_stray_faces_make_no_mesh(tmp_path):
    write_box(tmp_path / "cloud.ply", faces=0)
    write_box(tmp_path / "stray.ply", faces=3)
    cloud, stray = (
        read_scan_file(tmp_path / f"{name}.ply").cloud.superpoints for name in ("cloud", "stray")
    )
    assert torch.equal(cloud, stray)


def test_a_mesh_is_cut_by_the_rule_that_is_asked_for(tmp_path):
    path = tmp_path / "scan.ply"
    write_box(path)
    mesh = read_mesh(path)
    places = read_scan_file(path).cloud.xyz
    for rule in ("area", "scannet"):
        expected = mesh_superpoints(places, torch.from_numpy(mesh.faces), rule=rule)
        assert torch.equal(read_scan_file(path, rule=rule).cloud.superpoints, expected)


def write_floor(path, step):
    """3 x 3 m, red on one half."""
    x, y = np.meshgrid(np.arange(0, 3, step), np.arange(0, 3, step))
    names = [*((axis, "f4") for axis in "xyz"), *((c, "u1") for c in ("red", "green", "blue"))]
    rows = np.zeros(x.size, dtype=names)
    rows["x"], rows["y"] = x.ravel(), y.ravel()
    rows["red"] = np.where(rows["x"] < 1.5, 255, 0)
    PlyData([PlyElement.describe(rows, "vertex")]).write(str(path))
    return rows


def test_dense_rooms_are_thinned_and_every_point_is_answered_for(tmp_path):
    rows = write_floor(tmp_path / "dense.ply", 0.01)
    scan = read_scan_file(tmp_path / "dense.ply")
    assert len(scan.vertices) == scan.total == len(scan.owner) == len(rows)
    assert len(scan.cloud) < len(rows) / 8
    assert scan.owner.max() + 1 == len(scan.cloud)
    # Each stands for points within its cube, and has their mean colour.
    centred = scan.vertices - scan.vertices.mean(axis=0)
    assert np.abs(scan.cloud.xyz.numpy()[scan.owner] - centred).max() < 0.04
    is_red = scan.cloud.rgb[:, 0].numpy()[scan.owner] > 0
    assert (is_red == (rows["red"] > 0)).mean() > 0.98


def test_scans_as_dense_as_scannets_stay_as_they_are(tmp_path):
    rows = write_floor(tmp_path / "usual.ply", 0.035)
    scan = read_scan_file(tmp_path / "usual.ply")
    assert len(scan.cloud) == len(rows)
    assert np.array_equal(scan.owner, np.arange(len(rows)))
