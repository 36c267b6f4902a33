"""PLY meshes as other programs write them."""

import cv2
import numpy as np
import pytest

from detailbase.scans.meshes import read_mesh
from refer3d.runs.errors import InputError
from tests.detailbase.errors import assert_names

POINTS = ["0 0 0", "1 0 0", "0 1 0", "1 1 1"]
COLORS = ["10 20 30", "40 50 60", "70 80 90", "1 2 3"]
SHADES = [[int(v) for v in color.split()] for color in COLORS]
POSITION = [f"property float {axis}" for axis in "xyz"]
RGB = [f"property uchar {name}" for name in ("red", "green", "blue")]


def write(path, properties, rows, faces=(), face="property list uchar int vertex_indices"):
    lines = ["ply", "format ascii 1.0", f"element vertex {len(rows)}", *properties]
    lines += [f"element face {len(faces)}", face, "end_header", *rows, *faces]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def joined(*columns):
    return [" ".join(row) for row in zip(*columns, strict=True)]


@pytest.mark.parametrize("name", ["vertex_indices", "vertex_index", "vertex_indexes"])
@pytest.mark.parametrize("kind", ["uchar int", "int uint", "uchar ushort", "uchar short"])
def test_lists_of_corners_of_any_type(tmp_path, name, kind):
    face = f"property list {kind} {name}"
    path = write(tmp_path / "a.ply", POSITION + RGB, joined(POINTS, COLORS), ["3 0 1 2"], face)
    mesh = read_mesh(path)
    assert mesh.faces.tolist() == [[0, 1, 2]]
    assert mesh.colors.tolist() == SHADES


def test_more_properties_and_elements_do_no_harm(tmp_path):
    lines = [
        "ply",
        "format ascii 1.0",
        "element camera 1",
        "property float fov",
        "element vertex 4",
    ]
    lines += [*POSITION, "property float nx", *RGB, "element face 1", "property uchar flags"]
    lines += ["property list uchar int vertex_indices", "property list uchar float texcoord"]
    lines += ["element edge 1", "property int vertex1", "property int vertex2", "end_header", "60"]
    lines += [*joined(POINTS, ["0"] * 4, COLORS), "1 3 0 1 2 6 0 0 1 0 1 1", "0 1"]
    (tmp_path / "a.ply").write_text("\n".join(lines) + "\n")
    mesh = read_mesh(tmp_path / "a.ply")
    assert (mesh.faces.tolist(), mesh.colors.tolist()) == ([[0, 1, 2]], SHADES)


def test_strips_keep_their_winding(tmp_path):
    path = tmp_path / "a.ply"
    write(path, POSITION + RGB, joined(POINTS, COLORS), ["9 0 1 2 3 -1 3 2 1 -1"])
    text = path.read_text().replace("element face", "element tristrips")
    path.write_text(text.replace("uchar int", "int int"))
    assert read_mesh(path).faces.tolist() == [[0, 1, 2], [3, 2, 1], [3, 2, 1]]


def test_names_in_capitals(tmp_path):
    properties = [p[:-1] + p[-1].upper() for p in POSITION] + [
        p.replace(p.split()[-1], p.split()[-1].title()) for p in RGB
    ]
    mesh = read_mesh(write(tmp_path / "a.ply", properties, joined(POINTS, COLORS)))
    assert mesh.vertices.tolist() == [[float(v) for v in p.split()] for p in POINTS]
    assert mesh.colors.tolist() == SHADES


@pytest.mark.parametrize("at", ["vertices", "corners"])
def test_colours_come_from_the_texture_that_a_comment_names(tmp_path, at):
    image = np.zeros((2, 2, 3), dtype=np.uint8)
    image[1, 0], image[1, 1], image[0, 0] = [30, 20, 10], [60, 50, 40], [90, 80, 70]  # BGR
    (tmp_path / "Küche 1.png").write_bytes(cv2.imencode(".png", image)[1].tobytes())
    uv, path = ["0 0", "0.9 0.1", "0.1 1"], tmp_path / "a.ply"
    if at == "vertices":
        properties = [*POSITION, "property float s", "property float t"]
        write(path, properties, joined(POINTS[:3], uv), ["3 0 1 2"])
    else:
        face = "property list uchar int vertex_indices\nproperty list uchar float texcoord"
        write(path, POSITION, POINTS[:3], ["3 0 1 2 6 " + " ".join(uv)], face)
    text = path.read_text().replace("1.0\n", "1.0\ncomment TextureFile C:\\me\\Küche 1.png\n", 1)
    path.write_text(text, encoding="utf-8")
    assert read_mesh(path).colors.tolist() == SHADES[:3]


def test_an_absent_texture_is_named(tmp_path, caplog):
    properties = [*POSITION, "property float s", "property float t"]
    path = write(tmp_path / "a.ply", properties, joined(POINTS, ["0 0"] * 4))
    path.write_text(path.read_text().replace("1.0\n", "1.0\ncomment TextureFile a.png\n", 1))
    assert (read_mesh(path).colors == 127).all()
    assert "a.png" in caplog.text


def test_a_strip_beyond_the_vertices_is_an_error(tmp_path):
    path = write(tmp_path / "a.ply", POSITION + RGB, joined(POINTS, COLORS), ["3 0 1 9"])
    path.write_text(path.read_text().replace("element face", "element tristrips"))
    with pytest.raises(InputError) as caught:
        read_mesh(path)
    assert_names(caught.value, path, "vertex 9", "4", "export")
