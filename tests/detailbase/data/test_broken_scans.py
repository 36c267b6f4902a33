"""Errors of broken scans name the file, the field and the remedy."""

import numpy as np
import pytest
import torch

from detailbase.scans.clouds import NONE, Cloud, load_cloud, save_cloud
from detailbase.scans.scannet import read_scan
from refer3d.runs.errors import InputError
from tests.detailbase.errors import assert_names

from .conftest import colors, cut, replace, surface, write_ply

NUMBERS = np.arange(24, dtype="u2")


def with_color(row, value, dtype="i4"):
    columns = colors(dtype)
    columns["green"][row] = value
    return columns


# The damage to a scan, and what its error names in this order: file, field, value, remedy.
MESH, LABELS, SEGMENTS, OBJECTS = "_2.ply", "labels.ply", "segs.json", "aggregation.json"
SCANS = {
    "no mesh": (lambda s: s.mesh.unlink(), MESH, "copy"),
    "empty file": (lambda s: cut(s.mesh, 0), MESH, "copy"),
    "cut header": (lambda s: cut(s.mesh, 60), MESH, "copy"),
    "cut faces": (lambda s: cut(s.mesh, -5), MESH, "copy"),
    "no PLY": (lambda s: s.mesh.write_bytes(bytes(range(256))), MESH, "export"),
    "unknown type": (lambda s: replace(s.mesh, b"float x", b"foobar x"), MESH, "copy"),
    "huge count": (lambda s: replace(s.mesh, b"vertex 24", b"vertex 9999999999"), MESH, "copy"),
    "negative count": (lambda s: replace(s.mesh, b"vertex 24", b"vertex -4"), MESH, "copy"),
    "no vertex element": (
        lambda s: replace(s.mesh, b"element vertex", b"element points"),
        *(MESH, "vertex", "'points', 'face'", "export"),
    ),
    "no y": (
        lambda s: replace(s.mesh, b"float y", b"float q"),
        *(MESH, "no y", "x, q, z, red, green, blue", "export", "x, y, z"),
    ),
    "no vertices": (lambda s: write_ply(s.mesh, np.zeros((0, 3))), MESH, "vertices", "scan"),
    "infinite": (lambda s: s.move(3, np.inf), MESH, "vertex 3", "position", "[inf", "remove"),
    "millimetres": (lambda s: s.scale(1000), MESH, "1500 m", "at most 200", "metres"),
    "one colour": (
        lambda s: s.write_mesh(red=NUMBERS.astype("u1")),
        *(MESH, "no green", "x, y, z, red", "export"),
    ),
    "colour too large": (
        lambda s: s.write_mesh(**with_color(5, 256)),
        *(MESH, "colours", "256", "export"),
    ),
    "colour below 0": (
        lambda s: s.write_mesh(**with_color(2, -0.5, "f4")),
        *(MESH, "vertex 2", "colour", "[20.0, -0.5, 200.0]", "export"),
    ),
    "colour not a number": (
        lambda s: s.write_mesh(**with_color(7, np.nan, "f4")),
        *(MESH, "vertex 7", "colour", "nan", "export"),
    ),
    "colours neither shares nor bytes": (
        lambda s: s.write_mesh(**{name: v / 100 for name, v in colors("f4").items()}),
        *(MESH, "colours", "2.3", "1, 255", "export"),
    ),
    "face beyond": (
        lambda s: s.write_mesh([(0, 1, 2), (3, 4, 24)]),
        *(MESH, "face 1", "vertex 24", "export"),
    ),
    "negative face": (lambda s: s.write_mesh([(0, -1, 2)]), MESH, "face 0", "-1", "export"),
    "polygon beyond": (lambda s: s.write_mesh([(0, 1, 2, 99)]), MESH, "vertex 99", "export"),
    "faces without corners": (
        lambda s: replace(s.mesh, b"vertex_indices", b"other_property"),
        *(MESH, "vertex_indices", "other_property", "export"),
    ),
    "faces of fractions": (
        lambda s: replace(s.mesh, b"uchar int vertex", b"uchar float vertex"),
        *(MESH, "vertex_indices", "export"),
    ),
    "labels cut": (lambda s: cut(s.labels, -1), LABELS, "copy"),
    "labels without label": (lambda s: s.write_labels(other=NUMBERS), LABELS, "label", "copy"),
    "fractional labels": (
        lambda s: s.write_labels(label=NUMBERS.astype("f4")),
        *(LABELS, "label", "copy"),
    ),
    "labels of another scan": (
        lambda s: s.write_labels(20, label=NUMBERS[:20]),
        *(LABELS, "20 vertices", "24", "do not belong together"),
    ),
    "segments cut": (lambda s: cut(s.segments, 40), SEGMENTS, "JSON", "copy"),
    "segments no text": (lambda s: s.segments.write_bytes(b"\xff\xfe"), SEGMENTS, "copy"),
    "segments a list": (
        lambda s: s.segments.write_text("[1, 2]"),
        *(SEGMENTS, "object", "[1, 2]", "copy"),
    ),
    "no segIndices": (lambda s: s.segments.write_text("{}"), SEGMENTS, "segIndices", "copy"),
    "fractional segment": (
        lambda s: s.write_segments([1] * 4 + [2.5]),
        *(SEGMENTS, "segIndices[4]", "2.5", "copy"),
    ),
    "huge segment": (
        lambda s: s.write_segments([1, 2**63]),
        *(SEGMENTS, "segIndices[1]", "9223372036854775808", "copy"),
    ),
    "segments of another scan": (
        lambda s: s.write_segments([1] * 25),
        *(SEGMENTS, "segIndices", "25", "24 vertices", "do not belong together"),
    ),
    "objects of another scan": (
        lambda s: s.write_group(segments=[20, 21]),
        *(OBJECTS, "segGroups[1]", "segment 21", "segs.json", "do not belong together"),
    ),
    "objects cut": (lambda s: cut(s.objects, -1), OBJECTS, "JSON", "copy"),
    "no segGroups": (lambda s: s.objects.write_text("{}"), OBJECTS, "segGroups", "copy"),
    "group no object": (
        lambda s: s.objects.write_text('{"segGroups": [3]}'),
        *(OBJECTS, "segGroups[0]", "3", "copy"),
    ),
    "id text": (lambda s: s.write_group(id="4"), OBJECTS, "segGroups[1]", "id", "'4'", "copy"),
    "huge id": (lambda s: s.write_group(id=2**70), OBJECTS, "[1]", "id", "11805", "copy"),
    "id below 0": (lambda s: s.write_group(id=-1), OBJECTS, "[1]", "id", "-1", "copy"),
    "no segments": (
        lambda s: s.write_group(segments=None),
        *(OBJECTS, "segGroups[1]", "segments", "None", "copy"),
    ),
    "segments nested": (
        lambda s: s.write_group(segments=[[20]]),
        *(OBJECTS, "segGroups[1]", "segments[0]", "[20]", "copy"),
    ),
}


@pytest.mark.parametrize("name", SCANS)
def test_a_broken_scan_is_an_error(scan, name):
    damage, *parts = SCANS[name]
    read_scan(scan.folder)
    damage(scan)
    with pytest.raises(InputError) as caught:
        read_scan(scan.folder)
    assert_names(caught.value, scan.folder, *parts)


def make_cloud(count: int = 6) -> Cloud:
    xyz = torch.arange(count * 3).float().view(count, 3)
    none = torch.full((count,), NONE)
    return Cloud(xyz, torch.zeros(count, 3), torch.arange(count), none, none)


def saved_with(position: int, value: object):
    """Saves a cloud with another part."""

    def save(path):
        cloud = make_cloud()
        parts = [cloud.xyz, cloud.rgb, cloud.superpoints, cloud.semantic, cloud.instances]
        parts[position] = value
        torch.save(tuple(parts), path)

    return save


AGAIN = "scripts/prepare_scannet.py"
PREPARED = {
    "absent": (lambda p: p.unlink(),),
    "cut": (lambda p: cut(p, -300),),
    "empty": (lambda p: cut(p, 0),),
    "no file of torch": (lambda p: p.write_text("points"),),
    "other content": (lambda p: torch.save({"xyz": 1}, p), "dict"),
    "four parts": (lambda p: torch.save((torch.zeros(1, 3),) * 4, p), "tuple"),
    "a number": (saved_with(0, 3), "five tensors"),
    "no points": (lambda p: save_cloud(make_cloud(0), p), "points"),
    "flat xyz": (saved_with(0, torch.zeros(6)), "xyz", "[6, 3]", "[6]"),
    "fewer colours": (saved_with(1, torch.zeros(5, 3)), "rgb", "[6, 3]", "[5, 3]"),
    "fewer objects": (saved_with(4, torch.zeros(4)), "instances", "[6]", "[4]"),
    "whole xyz": (saved_with(0, torch.zeros(6, 3).long()), "xyz", "int64"),
    "real superpoints": (saved_with(2, torch.zeros(6)), "superpoints", "float32"),
    "boolean labels": (saved_with(3, torch.zeros(6) > 0), "semantic", "bool"),
    "no number": (saved_with(0, torch.full((6, 3), torch.nan)), "xyz", "row 0"),
    "bytes as colours": (saved_with(1, torch.full((6, 3), 255.0)), "rgb", "255"),
    "negative": (saved_with(2, torch.full((6,), -2)), "superpoints", "-2"),
    "NYU40 labels": (
        saved_with(3, torch.tensor([-100, 0, 19, 39, 2, 2])),
        *("semantic", "0 to 19", "39"),
    ),
    "millimetres": (saved_with(0, torch.eye(6, 3) * 5000), "5000 m", "at most", "metres"),
}


@pytest.mark.parametrize("name", PREPARED)
def test_a_broken_prepared_scan_is_an_error(tmp_path, name):
    damage, *parts = PREPARED[name]
    path = tmp_path / "scene_refer.pth"
    save_cloud(make_cloud(), path)
    load_cloud(path)
    damage(path)
    with pytest.raises(InputError) as caught:
        load_cloud(path)
    assert_names(caught.value, path, *parts, *([] if name == "millimetres" else [AGAIN]))


def test_superpoints_of_others_are_numbered_anew(tmp_path):
    saved_with(2, torch.tensor([5, 900, 5, 7, 7, 900]))(tmp_path / "scene_refer.pth")
    cloud = load_cloud(tmp_path / "scene_refer.pth")
    assert cloud.superpoints.tolist() == [0, 2, 0, 1, 1, 2]
    assert cloud.num_superpoints == 3


def test_what_is_written_is_read(tmp_path, scan):
    cloud, _ = read_scan(scan.folder)
    save_cloud(cloud, tmp_path / "scene_refer.pth")
    again = load_cloud(tmp_path / "scene_refer.pth")
    for name in ("xyz", "rgb", "superpoints", "semantic", "instances"):
        assert torch.equal(getattr(again, name), getattr(cloud, name)), name
    assert len(surface()[0]) == len(again)
