import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from detailbase.data.scan import UPS, read_scan_file
from runs.errors import InputError


def write_box(path, scale=1.0, with_faces=True):
    """A floor of 2 x 3 m with a step of half a metre, in some unit."""
    x, y = np.meshgrid(np.linspace(0, 2, 21), np.linspace(0, 3, 31), indexing="ij")
    z = np.where(x > 1, 0.5, 0.0)
    points = (np.stack([x, y, z], axis=-1).reshape(-1, 3) * scale).astype("f4")
    vertices = np.empty(len(points), dtype=[(axis, "f4") for axis in "xyz"])
    for index, axis in enumerate("xyz"):
        vertices[axis] = points[:, index]
    elements = [PlyElement.describe(vertices, "vertex")]
    if with_faces:
        corner = np.arange(21 * 31).reshape(21, 31)
        a, b, c, d = (corner[i : 20 + i, j : 30 + j].ravel() for i in (0, 1) for j in (0, 1))
        triangles = np.concatenate([np.stack([a, c, b], axis=1), np.stack([b, c, d], axis=1)])
        faces = np.empty(len(triangles), dtype=[("vertex_indices", "i4", (3,))])
        faces["vertex_indices"] = triangles
        elements.append(PlyElement.describe(faces, "face"))
    PlyData(elements).write(str(path))
    return points


@pytest.mark.parametrize("with_faces", [True, False])
def test_superpoints_follow_the_surface(tmp_path, with_faces):
    path = tmp_path / "scan.ply"
    points = write_box(path, with_faces=with_faces)
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


@pytest.mark.parametrize(("scale", "unit"), [(1000, "m"), (1, "mm"), (1e6, "m")])
def test_a_wrong_unit_is_seen(tmp_path, scale, unit):
    path = tmp_path / "scan.ply"
    write_box(path, scale)
    with pytest.raises(InputError, match=r"scan\.ply: reaches over .* give --unit"):
        read_scan_file(path, unit)
