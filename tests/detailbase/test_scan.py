import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from detailbase.ops import mesh_superpoints
from detailbase.scans.meshes import read_mesh
from detailbase.scans.scan import UPS, find_strays, read_scan_file
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


def test_faces_follow_the_kept_points(tmp_path):
    path = tmp_path / "scan.ply"
    write_box(path)
    ply = PlyData.read(str(path), mmap=False)
    ply["vertex"]["x"][[100, 300]] += [50, 90]  # strays
    ply.write(str(path))
    mesh, scan = read_mesh(path), read_scan_file(path)
    assert 0 < len(scan.rows) < scan.total
    kept = np.isin(mesh.faces, scan.rows).all(axis=1)
    np.testing.assert_array_equal(scan.rows[scan.faces], mesh.faces[kept])
    assert 0 < kept.sum() < len(mesh.faces)
    upright = scan.vertices @ scan.upright.T
    np.testing.assert_allclose(np.ptp(upright[:, 2]), 0.5)
    assert not len(read_scan_file(path, max_points=100).faces)


def test_large_scans_are_thinned_the_same_way_each_time(tmp_path):
    path = tmp_path / "scan.ply"
    points = write_box(path)
    one, other = (read_scan_file(path, max_points=100) for _ in range(2))
    assert 25 < len(one.cloud) <= 100
    assert len(one.rows) == 100
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
    torch.testing.assert_close(moved.cloud.xyz, near.cloud.xyz, rtol=0, atol=1e-5)
    assert torch.equal(moved.cloud.superpoints, near.cloud.superpoints)
    assert np.array_equal(moved.vertices, points + far)


def test_a_mesh_is_cut_by_the_rule_that_is_asked_for(tmp_path):
    path = tmp_path / "scan.ply"
    write_box(path)
    mesh = read_mesh(path)
    for rule in ("area", "scannet"):
        cloud = read_scan_file(path, rule=rule).cloud
        expected = mesh_superpoints(cloud.xyz, torch.from_numpy(mesh.faces), rule=rule)
        assert torch.equal(cloud.superpoints, expected)


@pytest.mark.parametrize("faces", [3, 400])
def test_a_broken_mesh_is_cut_as_a_cloud(tmp_path, faces):
    write_box(tmp_path / "cloud.ply", faces=0)
    write_box(tmp_path / "broken.ply", faces=faces)
    cloud, broken = (
        read_scan_file(tmp_path / f"{name}.ply", rule="scannet").cloud.superpoints
        for name in ("cloud", "broken")
    )
    assert torch.equal(cloud, broken)


def write_mesh(path, points, colors=None, faces=(), kind="f4"):
    colors = np.zeros((len(points), 3)) if colors is None else colors
    names = [*((a, kind) for a in "xyz"), *((c, "u1") for c in ("red", "green", "blue"))]
    rows = np.empty(len(points), dtype=names)
    for (name, _), column in zip(names, [*np.asarray(points).T, *colors.T], strict=True):
        rows[name] = column
    table = np.empty(len(faces), dtype=[("vertex_indices", "i4", (3,))])
    table["vertex_indices"] = faces if len(faces) else np.zeros((0, 3))
    PlyData([PlyElement.describe(rows, "vertex"), PlyElement.describe(table, "face")]).write(
        str(path)
    )


def room(rng):
    """A floor, two walls and a cabinet that is dark: a mesh with a turn of its own."""
    u, v = (axis.ravel() for axis in np.meshgrid(np.linspace(0, 1, 31), np.linspace(0, 1, 31)))
    grid = np.arange(31 * 31).reshape(31, 31)
    cells = [grid[i : 30 + i, j : 30 + j].ravel() for i in (0, 1) for j in (0, 1)]
    face = np.concatenate([np.stack(cells[:3], axis=1), np.stack(cells[:0:-1], axis=1)])
    zero = 0 * u
    parts = [
        (np.stack([3 * u, 2.4 * v, zero], axis=1), 200),
        (np.stack([3 * u, zero, 1.5 * v + 0.05], axis=1), 160),
        (np.stack([zero, 2.4 * u, 1.5 * v + 0.05], axis=1), 120),
        (np.stack([1 + 0.8 * u, 1.2 + zero, 0.9 * v + 0.03], axis=1), 20),
        (np.stack([1 + 0.8 * u, 1.2 + 0.7 * v, 0.95 + zero], axis=1), 20),
    ]
    points = np.concatenate([part for part, _ in parts])
    colors = np.repeat([shade for _, shade in parts], len(u))[:, None] * np.ones(3)
    faces = np.concatenate([face + i * len(u) for i in range(len(parts))])
    points += rng.normal(0, 0.002, points.shape)
    return points.astype(np.float32).astype(float), colors, faces


def labels_by_row(path, rule):
    scan = read_scan_file(path, rule=rule)
    labels = np.full(scan.total, -1)
    labels[scan.rows] = scan.cloud.superpoints.numpy()[scan.owner]
    return labels


def share_of_pieces(labels, expected):
    """Mean over rows of the IoU of the two pieces that they lie in."""
    kept = (labels >= 0) & (expected >= 0)
    counts = np.zeros((labels.max() + 1, expected.max() + 1))
    np.add.at(counts, (labels[kept], expected[kept]), 1)
    union = counts.sum(axis=1, keepdims=True) + counts.sum(axis=0) - counts
    return (counts / np.maximum(union, 1))[labels[kept], expected[kept]].mean()


def change_file(name, points, colors, faces, rng):
    """The changed file's arrays, and each row's row in the unchanged one, or -1."""
    same = np.arange(len(points))
    if name == "turn":
        cos, sin = np.cos(0.6), np.sin(0.6)
        turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
        return points @ turn.T, colors, faces, same
    if name == "order":
        order = rng.permutation(len(points))
        return points[order], colors[order], np.argsort(order)[faces], order
    if name == "winding":
        return points, colors, faces[:, ::-1], same
    if name == "triangles apart":
        corners = faces.ravel()
        return points[corners], colors[corners], np.arange(len(corners)).reshape(-1, 3), corners
    if name == "twice":
        twice = np.tile(same, 2)
        return points[twice], colors[twice], np.concatenate([faces, faces + len(points)]), twice
    if name == "few faces":
        return points, colors, faces[rng.random(len(faces)) < 0.25], same
    if name == "no faces":
        return points, colors, faces[:0], same
    stray = points.mean(axis=0, keepdims=True) + np.array([60, 0, 0])
    return np.concatenate([points, stray]), np.concatenate([colors, colors[:1]]), faces, [*same, -1]


CHANGES = ("turn", "order", "winding", "triangles apart", "twice", "few faces", "no faces", "stray")


@pytest.mark.parametrize("change", CHANGES)
def test_what_does_not_matter_does_not_change_superpoints(tmp_path, change):
    rng = np.random.default_rng(0)
    points, colors, faces = room(rng)
    write_mesh(tmp_path / "room.ply", points, colors, faces)
    points, colors, faces, source = change_file(change, points, colors, faces, rng)
    write_mesh(tmp_path / "changed.ply", points, colors, faces)
    base = read_scan_file(tmp_path / "room.ply")
    changed = read_scan_file(tmp_path / "changed.ply")
    expected = labels_by_row(tmp_path / "room.ply", "points")
    labels = labels_by_row(tmp_path / "changed.ply", "points")
    assert 4 <= labels.max() < 60
    source = np.asarray(source)
    known = source >= 0
    assert (labels[known] >= 0).all()
    assert share_of_pieces(labels[known], expected[source[known]]) > 0.95
    # The network sees it in the same place and turn.
    assert len(changed.cloud) == len(base.cloud)
    places = changed.cloud.xyz[changed.owner][torch.from_numpy(known[changed.rows])]
    expected = base.cloud.xyz[base.owner][source[known]]
    assert (places - expected).norm(dim=1).median() < 0.01


@pytest.mark.parametrize("change", ["triangles apart", "twice"])
def test_rules_for_meshes_join_points_at_one_place(tmp_path, change):
    rng = np.random.default_rng(0)
    points, colors, faces = room(rng)
    write_mesh(tmp_path / "room.ply", points, colors, faces)
    *changed, source = change_file(change, points, colors, faces, rng)
    write_mesh(tmp_path / "changed.ply", *changed)
    expected = labels_by_row(tmp_path / "room.ply", "area")
    labels = labels_by_row(tmp_path / "changed.ply", "area")
    assert share_of_pieces(labels, expected[source]) > 0.95


def test_a_vertex_in_no_face_joins_its_neighbour(tmp_path):
    rng = np.random.default_rng(0)
    points, colors, faces = room(rng)
    faces = faces[~np.isin(faces, [40, 500, 2000]).any(axis=1)]
    write_mesh(tmp_path / "room.ply", points, colors, faces)
    labels = labels_by_row(tmp_path / "room.ply", "area")
    for row in (40, 500, 2000):
        nearest = np.linalg.norm(points - points[row], axis=1).argsort()[1]
        assert labels[row] == labels[nearest]


def test_a_coarse_mesh_is_filled_with_points(tmp_path):
    """A room of twelve triangles: the network sees its walls, the answer has the file's rows."""
    corner = np.array([[x, y, z] for x in (0, 4.0) for y in (0, 3.0) for z in (0, 2.5)])
    quads = [(0, 1, 3, 2), (4, 5, 7, 6), (0, 1, 5, 4), (2, 3, 7, 6), (0, 2, 6, 4), (1, 3, 7, 5)]
    faces = np.array([(q[0], q[i], q[i + 1]) for q in quads for i in (1, 2)])
    write_mesh(tmp_path / "room.ply", corner, faces=faces)
    scan = read_scan_file(tmp_path / "room.ply")
    assert scan.total == len(scan.rows) == 8
    assert len(scan.cloud) > 59 / 0.04**2 / 2  # square metres
    sizes = torch.bincount(scan.cloud.superpoints).sort(descending=True).values
    assert sizes[:6].sum() > 0.8 * sizes.sum()
    assert sizes[6] < sizes[5] / 4


def test_strays_are_found_and_sparse_parts_kept():
    """Points in the air of a room; its far wall is scanned four times as sparsely."""
    rng = np.random.default_rng(0)
    near = rng.uniform(0, 3, (12_000, 3)) * [1, 1, 0]
    far = rng.uniform(0, 3, (750, 3)) * [0, 1, 1]
    air = rng.uniform(0.3, 2.7, (20, 3))
    strays = find_strays(np.concatenate([near, far, air]))
    is_air = np.arange(len(strays)) >= len(near) + len(far)
    assert strays[is_air].mean() > 0.8
    assert strays[~is_air].mean() < 0.005
    assert not find_strays(rng.uniform(0, 3, (500, 3))).any()


def test_stray_points_do_not_make_a_room(tmp_path):
    """A table scan with a point at 4 m is not thinned like a room, and the point gets no answer."""
    u, v = (axis.ravel() for axis in np.meshgrid(np.linspace(0, 1, 120), np.linspace(0, 1, 120)))
    points = np.stack([u, v, 0.1 * (u > 0.5)], axis=1)
    write_mesh(tmp_path / "table.ply", np.concatenate([points, [[4.0, 0, 0]]]))
    scan = read_scan_file(tmp_path / "table.ply")
    assert len(scan.cloud) == len(points)
    assert scan.total - 1 not in scan.rows


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
    away = scan.cloud.xyz.numpy()[scan.owner].std(axis=0) - scan.vertices.std(axis=0)
    assert np.abs(away).max() < 0.04
    is_red = scan.cloud.rgb[:, 0].numpy()[scan.owner] > 0
    assert (is_red == (rows["red"] > 0)).mean() > 0.98


def test_scans_as_dense_as_scannets_stay_as_they_are(tmp_path):
    rows = write_floor(tmp_path / "usual.ply", 0.035)
    scan = read_scan_file(tmp_path / "usual.ply")
    assert len(scan.cloud) == len(rows)
    assert np.array_equal(scan.owner, np.arange(len(rows)))
