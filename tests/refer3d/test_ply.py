"""PLY files as other programs write them."""

from __future__ import annotations

import numpy as np
import pytest
from plyfile import PlyData, PlyElement

from refer3d.runs.errors import InputError
from refer3d.runs.ply import read_colors, read_ply
from tests.errors import raises

ROWS = np.array([(0, 1, 2), (3, 4, 5)], dtype=[(name, "f4") for name in "xyz"])
HEADER = """ply
format ascii 1.0
comment Küche
obj_info before
element vertex 2
property float x
property float y
property float z
obj_info behind
end_header
"""
BODY = "0 1 2\n3 4 5\n"


def save(path, rows, text=False, order="<"):
    PlyData([PlyElement.describe(rows, "vertex")], text=text, byte_order=order).write(str(path))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_headers_in_any_encoding(tmp_path, encoding, newline):
    path = tmp_path / "a.ply"
    path.write_bytes((HEADER + BODY).replace("\n", newline).encode(encoding))
    np.testing.assert_array_equal(read_ply(path, "copy it")["vertex"].data, ROWS)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_binary_bodies_behind_odd_headers(tmp_path, order, newline):
    rows = np.array([(10, 2570), (13, 3338)], dtype=[("a", order + "i4"), ("b", order + "i4")])
    path = save(tmp_path / "a.ply", rows, order=order)
    header, _, body = path.read_bytes().partition(b"end_header\n")
    header = header.replace(b"ply\n", b"ply \ncomment B\xfcro\n") + b"obj_info 1\nend_header \n"
    path.write_bytes(header.replace(b"\n", newline) + body)
    np.testing.assert_array_equal(read_ply(path, "copy it")["vertex"].data, rows)


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"v 0 0 0\nv 1 1 1", "no header"),
        (HEADER.encode() + b"0 1 2\n", "cut short"),
        (HEADER.encode() + b"0 1 2\n3 4 five\n", "vertex"),
        (HEADER.replace("ascii", "binary_little_endian").encode() + b"123", "cut short"),
        (HEADER.replace("vertex 2", "vertex 99999999999999").encode() + b"0 1 2", "PLY"),
    ],
)
def test_errors_say_what_the_file_is(tmp_path, content, names):
    (tmp_path / "a.ply").write_bytes(content)
    with raises(InputError, "a.ply", names, "export it"):
        read_ply(tmp_path / "a.ply", "export it")


def test_a_header_full_of_bytes_is_quoted_in_part(tmp_path):
    junk = b"\x01\x85" * 3000
    (tmp_path / "a.ply").write_bytes(HEADER.encode().replace(b"float", b"float" + junk, 1))
    with raises(InputError, "a.ply", "export it") as error:
        read_ply(tmp_path / "a.ply", "export it")
    text = str(error.value).removeprefix(str(tmp_path))
    assert text.isprintable()
    assert len(text) < 300


def test_absent_file(tmp_path):
    with raises(InputError, "a.ply", "no such file", "export it"):
        read_ply(tmp_path / "a.ply", "export it")


BYTES = np.array([(255, 0, 51), (0, 102, 0)])
PCL = (BYTES[:, 0] << 16 | BYTES[:, 1] << 8 | BYTES[:, 2]).astype(np.uint32)


def columns(values, dtype, names=("red", "green", "blue")):
    rows = np.zeros(2, dtype=[(name, dtype) for name in names])
    for name, column in zip(names, np.asarray(values).T, strict=True):
        rows[name] = column
    return rows


@pytest.mark.parametrize(
    "rows",
    [
        columns(BYTES, "u1"),
        columns(BYTES / 255, "f4"),
        columns(BYTES / 255, "f8", ("r", "g", "b")),
        columns(BYTES, "f4", ("Red", "Green", "Blue")),
        columns(BYTES * 257, ">u2"),
        columns(BYTES, "u2", ("diffuse_red", "diffuse_green", "diffuse_blue")),
        columns(BYTES, "i4", tuple("RGB")),
        columns((BYTES / 255 - 0.5) / 0.28209479, "f4", ("f_dc_0", "f_dc_1", "f_dc_2")),
        columns(PCL[:, None], "<u4", ("rgba",)),
        columns(PCL[:, None], ">u4", ("rgba",)),
        columns(PCL.view("<f4")[:, None], ">f4", ("rgb",)),
    ],
    ids=lambda rows: "-".join((*rows.dtype.names, rows.dtype[0].str[1:])),
)
def test_colors_mean_the_same_in_every_type(tmp_path, rows):
    warnings = []
    np.testing.assert_array_equal(read_colors(rows, tmp_path, warnings), BYTES)
    assert not warnings


def test_colors_of_no_scale(tmp_path):
    assert read_colors(ROWS, tmp_path, []) is None
    for value in (-1, 70000, 3.5, 300.5, float("nan")):
        with raises(InputError, tmp_path, "colours of 8 bits"):
            read_colors(columns(np.full((2, 3), value), "f4"), tmp_path, [])


def test_bytes_up_to_one_are_black_with_a_word(tmp_path):
    warnings = []
    rows = columns(BYTES > 60, "u1")
    np.testing.assert_array_equal(read_colors(rows, tmp_path / "a.ply", warnings), BYTES > 60)
    assert "a.ply" in warnings[0]
