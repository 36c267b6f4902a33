"""Scans in files that each format's own library wrote."""

import sys

import numpy as np
import pytest
from PIL import Image

from detailbase.scans.formats import read_file
from detailbase.scans.scan import read_scan_file
from refer3d.runs.errors import InputError
from tests.detailbase.errors import assert_names

POINTS = np.array([[0, 0, 0], [2, 0, 0], [2, 1, 0], [0, 1, 0.5], [0.5, 0.5, 1]], dtype=float)
COLORS = np.array([[10, 20, 30], [250, 0, 0], [0, 250, 0], [0, 0, 250], [90, 90, 90]], dtype="u1")
FACES = np.array([[0, 1, 2], [0, 2, 3], [0, 1, 4]])


def check(mesh, colors=COLORS, faces=FACES):
    np.testing.assert_allclose(mesh.vertices, POINTS, atol=1e-6)
    assert mesh.colors.tolist() == colors.tolist()
    assert mesh.faces.tolist() == faces.tolist()


@pytest.mark.parametrize("suffix", ["obj", "glb"])
def test_meshes_of_trimesh(tmp_path, suffix):
    trimesh = pytest.importorskip("trimesh")
    mesh = trimesh.Trimesh(POINTS, FACES, vertex_colors=COLORS, process=False)
    path = tmp_path / f"a.{suffix}"
    mesh.export(path)
    result = read_file(path)
    assert result.up == ("y" if suffix == "glb" else "z")
    check(result)


def test_nodes_of_a_scene_are_placed(tmp_path):
    trimesh = pytest.importorskip("trimesh")
    scene = trimesh.Scene()
    for shift in (0, 5):
        mesh = trimesh.Trimesh(POINTS, FACES, vertex_colors=COLORS, process=False)
        scene.add_geometry(
            mesh, transform=trimesh.transformations.translation_matrix([0, shift, 0])
        )
    scene.export(tmp_path / "a.glb")
    result = read_file(tmp_path / "a.glb")
    assert sorted(result.vertices[:, 1].tolist()) == sorted([*POINTS[:, 1], *(POINTS[:, 1] + 5)])
    assert result.faces.max() == 9


@pytest.mark.parametrize("scale", [1, 255.0])
def test_off_with_and_without_colours(tmp_path, scale, caplog):
    trimesh = pytest.importorskip("trimesh")
    trimesh.Trimesh(POINTS, FACES, process=False).export(tmp_path / "a.off")
    check(read_file(tmp_path / "a.off"), np.full_like(COLORS, 127))
    assert "no colours" in caplog.text
    lines = (tmp_path / "a.off").read_text().split("\n")
    rows = [" ".join(map(str, color)) for color in (COLORS / scale if scale > 1 else COLORS)]
    start = next(i for i, line in enumerate(lines) if line.split()[:2] == ["5", "3"]) + 1
    for index, row in enumerate(rows):
        lines[start + index] += f" {row} {1.0 if scale > 1 else 255}"
    (tmp_path / "c.off").write_text("\n".join(lines).replace("OFF", "COFF"))
    check(read_file(tmp_path / "c.off"))


def test_triangles_of_stl_have_no_colours(tmp_path, caplog):
    trimesh = pytest.importorskip("trimesh")
    trimesh.Trimesh(POINTS, FACES, process=False).export(tmp_path / "a.stl")
    result = read_file(tmp_path / "a.stl")
    np.testing.assert_allclose(result.vertices[result.faces], POINTS[FACES], atol=1e-6)
    assert (result.colors == 127).all()
    assert "no colours" in caplog.text


@pytest.mark.parametrize("suffix", ["obj", "glb"])
def test_colours_between_vertices_come_from_the_texture(tmp_path, suffix):
    """A wall of two triangles, its left half red and its right half blue."""
    trimesh = pytest.importorskip("trimesh")
    pixels = np.zeros((8, 8, 3), dtype="u1")
    pixels[:, :4, 0], pixels[:, 4:, 2] = 255, 255
    corners = np.array([[0, 0, 0], [3, 0, 0], [3, 0, 2], [0, 0, 2]], dtype=float)
    visual = trimesh.visual.TextureVisuals(
        corners[:, [0, 2]] / [3, 2], image=Image.fromarray(pixels)
    )
    mesh = trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], visual=visual, process=False)
    mesh.export(tmp_path / f"a.{suffix}")
    scan = read_scan_file(tmp_path / f"a.{suffix}", up="z")
    assert scan.total == 4
    assert (scan.colors[:, 0] > 127).tolist() == (scan.vertices[:, 0] < 1.5).tolist()
    assert len(scan.cloud) > 1000
    red = scan.cloud.rgb[:, 0] > 0
    blue = scan.cloud.rgb[:, 2] > 0
    assert (red ^ blue).float().mean() > 0.97
    assert red.float().mean() == pytest.approx(0.5, abs=0.05)
    assert scan.cloud.num_superpoints == 2


def test_rows_of_obj_are_its_lines(tmp_path):
    """Corners of other texture coordinates make no other rows."""
    pytest.importorskip("trimesh")
    Image.new("RGB", (4, 4), (200, 100, 0)).save(tmp_path / "a.png")
    (tmp_path / "a.mtl").write_text("newmtl m\nmap_Kd a.png\n")
    lines = ["mtllib a.mtl", "usemtl m", *(f"v {x} {y} {z}" for x, y, z in POINTS)]
    lines += [
        "vt 0 0",
        "vt 1 0",
        "vt 1 1",
        "vt 0 1",
        "f 1/1 2/2 3/3",
        "f 1/4 3/2 4/1",
        "f 1/2 2/1 5/3",
    ]
    (tmp_path / "a.obj").write_text("\n".join(lines) + "\n")
    result = read_file(tmp_path / "a.obj")
    np.testing.assert_allclose(result.vertices, POINTS)
    assert result.faces.tolist() == FACES.tolist()
    assert (result.colors == [200, 100, 0]).all()


@pytest.mark.parametrize("suffix", ["las", "laz"])
@pytest.mark.parametrize("scale", [1, 257])
def test_laspys_clouds(tmp_path, suffix, scale):
    laspy = pytest.importorskip("laspy")
    pytest.importorskip("lazrs")
    las = laspy.create(point_format=3, file_version="1.2")
    las.header.scales, las.header.offsets = [0.001] * 3, [500_000, 4_649_776, 0]
    far = POINTS + np.array([500_000, 4_649_776, 0])
    las.x, las.y, las.z = far.T
    las.red, las.green, las.blue = COLORS.T.astype("u2") * scale
    las.write(tmp_path / f"a.{suffix}")
    result = read_file(tmp_path / f"a.{suffix}")
    np.testing.assert_allclose(result.vertices, far, atol=1e-6)
    assert result.colors.tolist() == COLORS.tolist()


def test_las_of_too_many_records_is_refused(tmp_path):
    """laspy would look for each of the four billion."""
    laspy = pytest.importorskip("laspy")
    laspy.create(point_format=3, file_version="1.4").write(tmp_path / "a.las")
    whole = (tmp_path / "a.las").read_bytes()
    for place in (100, 243):
        content = whole[:place] + b"\xff" * 4 + whole[place + 4 :]
        (tmp_path / "a.las").write_bytes(content)
        with pytest.raises(InputError, match=r"a\.las: .* 4294967295 records"):
            read_file(tmp_path / "a.las")


def test_pcd_of_too_many_columns_is_refused(tmp_path):
    pytest.importorskip("pypcd4")
    header = "VERSION .7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 2147483648 1\n"
    (tmp_path / "a.pcd").write_text(header + "WIDTH 1\nHEIGHT 1\nPOINTS 1\nDATA ascii\n0 0 0\n")
    with pytest.raises(InputError, match=r"a\.pcd: COUNT: .* copy it again"):
        read_file(tmp_path / "a.pcd")


def test_pye57s_scans_share_a_frame(tmp_path):
    pye57 = pytest.importorskip("pye57")
    columns = {f"cartesian{axis}": POINTS[:, i].copy() for i, axis in enumerate("XYZ")}
    names = ("colorRed", "colorGreen", "colorBlue")
    columns |= {name: COLORS[:, i].copy() for i, name in enumerate(names)}
    file = pye57.E57(str(tmp_path / "a.e57"), mode="w")
    file.write_scan_raw(columns)
    file.write_scan_raw(
        columns, translation=np.array([0, 0, 3.0]), rotation=np.array([1.0, 0, 0, 0])
    )
    file.close()
    result = read_file(tmp_path / "a.e57")
    np.testing.assert_allclose(
        result.vertices, np.concatenate([POINTS, POINTS + np.array([0, 0, 3])])
    )
    assert result.colors.tolist() == [*COLORS.tolist()] * 2


@pytest.mark.parametrize("encoding", ["ASCII", "BINARY", "BINARY_COMPRESSED"])
def test_pypcd4s_clouds_with_empty_pixels(tmp_path, encoding):
    pypcd4 = pytest.importorskip("pypcd4")
    points = np.concatenate([POINTS, [[np.nan] * 3]]).astype("f4")
    colors = np.concatenate([COLORS, COLORS[:1]])
    packed = pypcd4.PointCloud.encode_rgb(colors).ravel()
    # As text the library writes a float with too few digits.
    packed, kind = (packed.view("u4"), "u4") if encoding == "ASCII" else (packed, "f4")
    cloud = pypcd4.PointCloud.from_points(
        [*points.T, packed], ("x", "y", "z", "rgb"), ("f4", "f4", "f4", kind)
    )
    cloud.save(tmp_path / "a.pcd", encoding=getattr(pypcd4.Encoding, encoding))
    result = read_file(tmp_path / "a.pcd")
    np.testing.assert_allclose(result.vertices[:5], POINTS)
    assert result.colors[:5].tolist() == COLORS.tolist()
    scan = read_scan_file(tmp_path / "a.pcd")
    assert (scan.total, scan.rows.tolist()) == (6, [0, 1, 2, 3, 4])


TABLES = {
    "blanks.xyz": (" ", "", {}),
    "header.csv": (",", "x,y,z,red,green,blue", {}),
    "semicolons.csv": (";", '"X";"Y";"Z";"R";"G";"B"', {"comma": True}),
    "cloudcompare.txt": (" ", "//X Y Z R G B", {}),
    "tabs.asc": ("\t", "# x\ty\tz\tr\tg\tb", {}),
    "windows.csv": (",", "\ufeffx,y,z,red,green,blue", {"newline": "\r\n"}),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables(tmp_path, name):
    mark, header, options = TABLES[name]
    rows = [[*map(str, p), *map(str, c)] for p, c in zip(POINTS, COLORS, strict=True)]
    lines = [mark.join(row) for row in rows]
    if options.get("comma"):
        lines = [line.replace(".", ",") for line in lines]
    text = options.get("newline", "\n").join([header, *lines] if header else lines)
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    check(read_file(tmp_path / name), faces=FACES[:0])


def test_pts_has_a_count_and_intensities(tmp_path):
    rows = [
        f"{p[0]} {p[1]} {p[2]} -70 {c[0]} {c[1]} {c[2]}"
        for p, c in zip(POINTS, COLORS, strict=True)
    ]
    (tmp_path / "a.pts").write_text("\n".join(["5", *rows]))
    check(read_file(tmp_path / "a.pts"), faces=FACES[:0])


def test_normals_are_no_colours(tmp_path, caplog):
    (tmp_path / "a.xyz").write_text("0 0 0 0 0 -1\n1 0 0 0 1 0\n")
    assert (read_file(tmp_path / "a.xyz").colors == 127).all()
    assert "no colours" in caplog.text


@pytest.mark.parametrize(
    ("suffix", "package"),
    [("obj", "trimesh"), ("laz", "laspy"), ("e57", "pye57"), ("pcd", "pypcd4")],
)
def test_an_absent_package_is_named(tmp_path, monkeypatch, suffix, package):
    (path := tmp_path / f"a.{suffix}").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError) as caught:
        read_file(path)
    assert_names(caught.value, path, package, "refer3d[scans]", "PLY")


@pytest.mark.parametrize("suffix", ["obj", "glb", "stl", "off", "las", "laz", "e57", "pcd", "xyz"])
@pytest.mark.parametrize("content", [b"", b"\x00\xff garbage \x80" * 9])
def test_a_broken_file_is_an_error(tmp_path, suffix, content):
    (path := tmp_path / f"a.{suffix}").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_file(path)
    assert_names(caught.value, path)


def test_absent_and_unknown_files(tmp_path):
    for name in ("a.obj", "a.ply", "a.xyz"):
        with pytest.raises(InputError) as caught:
            read_file(tmp_path / name)
        assert_names(caught.value, tmp_path / name, "no such file")
    (path := tmp_path / "a.blend").write_bytes(b"BLENDER-v279")
    with pytest.raises(InputError) as caught:
        read_file(path)
    assert_names(caught.value, path, "PLY", "export")
