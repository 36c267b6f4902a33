"""Of every broken scan it is said which file, which entry, and what to do."""

import re

import numpy as np
import pytest
import torch

from detailbase.scans.clouds import NONE, Cloud, load_cloud, save_cloud
from detailbase.scans.scannet import read_scan
from refer3d.runs.errors import InputError

from .conftest import colors, cut, replace, surface, write_ply

AGAIN = "scripts/prepare_scannet.py --force"
NUMBERS = np.arange(24, dtype="u2")


def with_color(row, value, dtype="i4"):
    columns = colors(dtype)
    columns["green"][row] = value
    return columns


# What is done to a scan, and what must be said, in this order.
SCANS = {
    "no mesh": (lambda s: s.mesh.unlink(), "_2.ply: no such file"),
    "empty file": (lambda s: cut(s.mesh, 0), "_2.ply: is not a whole PLY .*copy it again"),
    "cut header": (lambda s: cut(s.mesh, 60), "_2.ply: is not a whole PLY .*copy it again"),
    "cut vertices": (lambda s: cut(s.mesh, 400), "_2.ply: is not a whole PLY .*early end-of-file"),
    "cut faces": (lambda s: cut(s.mesh, -5), "_2.ply: is not a whole PLY .*early end-of-file"),
    "no PLY": (lambda s: s.mesh.write_bytes(bytes(range(256))), "_2.ply: is not a whole PLY"),
    "unknown type": (lambda s: replace(s.mesh, b"float x", b"foobar x"), "is not a whole PLY"),
    "huge count": (lambda s: replace(s.mesh, b"vertex 24", b"vertex 9999999999"), "is not a whole"),
    "negative count": (lambda s: replace(s.mesh, b"vertex 24", b"vertex -4"), "is not a whole PLY"),
    "no vertex element": (
        lambda s: replace(s.mesh, b"element vertex", b"element points"),
        "has no element vertex, only points, face; export",
    ),
    "no y": (
        lambda s: replace(s.mesh, b"float y", b"float q"),
        "vertices have no y, only x, q, z, red, green, blue; export it with x, y, z",
    ),
    "no vertices": (lambda s: write_ply(s.mesh, np.zeros((0, 3))), "has no vertices; scan"),
    "not a number": (lambda s: s.move(3, np.nan), r"vertex 3: its place must be finite, got \[nan"),
    "infinite": (lambda s: s.move(0, np.inf), r"vertex 0: its place must be finite, got \[inf"),
    "millimetres": (lambda s: s.scale(1000), "_2.ply: reaches over 1500 m, expected at most 200"),
    "one colour": (
        lambda s: s.write_mesh(red=NUMBERS.astype("u1")),
        "vertices have no green, only x, y, z, red; export it with red, green, blue",
    ),
    "colour too large": (
        lambda s: s.write_mesh(**with_color(5, 256)),
        r"vertex 5: its colour must be 0 to 255, .*got \(50, 256, 200\); export",
    ),
    "colour below 0": (
        lambda s: s.write_mesh(**with_color(2, -0.5, "f4")),
        r"vertex 2: its colour must be .*got \(20.0, -0.5, 200.0\); export",
    ),
    "colour not a number": (
        lambda s: s.write_mesh(**with_color(7, np.nan, "f4")),
        "vertex 7: its colour must be finite, got .*nan",
    ),
    "colours neither shares nor bytes": (
        lambda s: s.write_mesh(**{name: v / 100 for name, v in colors("f4").items()}),
        "its colours reach up to .*, which is neither 0 to 1 nor 0 to 255; export it with",
    ),
    "face beyond": (
        lambda s: s.write_mesh([(0, 1, 2), (3, 4, 24)]),
        "face 1 names vertex 24, but there are 24; copy or export it again",
    ),
    "negative face": (lambda s: s.write_mesh([(0, -1, 2)]), "face 0 names vertex -1, but there"),
    "polygon beyond": (lambda s: s.write_mesh([(0, 1, 2, 99)]), "names vertex 99, but there are"),
    "faces without corners": (
        lambda s: replace(s.mesh, b"vertex_indices", b"other_property"),
        "faces have no vertex_indices, only other_property; export it again",
    ),
    "faces of fractions": (
        lambda s: replace(s.mesh, b"uchar int vertex", b"uchar float vertex"),
        "vertex_indices must be lists of vertex numbers; export",
    ),
    "labels cut": (lambda s: cut(s.labels, -1), "labels.ply: is not a whole PLY file"),
    "labels without label": (
        lambda s: s.write_labels(other=NUMBERS),
        "labels.ply: its vertices need whole numbers as label; copy",
    ),
    "fractional labels": (
        lambda s: s.write_labels(label=NUMBERS.astype("f4")),
        "labels.ply: its vertices need whole numbers as label",
    ),
    "labels of another scan": (
        lambda s: s.write_labels(20, label=NUMBERS[:20]),
        "labels.ply: has labels of 20 vertices, but the mesh has 24; .*do not belong together",
    ),
    "segments no JSON": (lambda s: cut(s.segments, 40), "segs.json: is not JSON .*copy it again"),
    "segments no text": (lambda s: s.segments.write_bytes(b"\xff\xfe"), "segs.json: is not JSON"),
    "segments a list": (
        lambda s: s.segments.write_text("[1, 2]"),
        r"segs.json: expected an object with the list segIndices, got \[1, 2\]; copy",
    ),
    "no segIndices": (lambda s: s.segments.write_text("{}"), "the list segIndices, got None"),
    "fractional segment": (
        lambda s: s.write_segments([1] * 4 + [2.5]),
        r"segIndices\[4\] must be a whole number, got 2.5; copy",
    ),
    "huge segment": (
        lambda s: s.write_segments([1, 2**63]),
        r"segIndices\[1\] must be a whole number, got 9223372036854775808; copy",
    ),
    "segments of another scan": (
        lambda s: s.write_segments([1] * 25),
        "segIndices has 25 entries, but the mesh has 24 vertices; .*do not belong together",
    ),
    "objects of another scan": (
        lambda s: s.write_group(segments=[20, 21]),
        r"aggregation.json: segGroups\[1\]: segment 21 is not in the scan's segs.json; .*together",
    ),
    "objects cut": (lambda s: cut(s.objects, -1), "aggregation.json: is not JSON"),
    "no segGroups": (lambda s: s.objects.write_text("{}"), "the list segGroups, got None; copy"),
    "group no object": (
        lambda s: s.objects.write_text('{"segGroups": [3]}'),
        r"segGroups\[0\] must be an object with id and segments, got 3; copy",
    ),
    "id text": (lambda s: s.write_group(id="4"), r"segGroups\[1\]: id must be .*got '4'; copy"),
    "huge id": (lambda s: s.write_group(id=2**70), r"\[1\]: id must be .*to 2\^31, got 11805"),
    "id below 0": (lambda s: s.write_group(id=-1), r"\[1\]: id must be .*from 0 to 2\^31, got -1"),
    "no segments": (lambda s: s.write_group(segments=None), r"\[1\]: segments must be .*got None"),
    "segments nested": (
        lambda s: s.write_group(segments=[[20]]),
        r"\[1\]: segments must be a list of whole numbers, got \[\[20\]\]; copy",
    ),
}


@pytest.mark.parametrize("name", SCANS)
def test_says_what_is_wrong_with_a_scan(scan, name):
    breaks, says = SCANS[name]
    read_scan(scan.folder)
    breaks(scan)
    with pytest.raises(InputError) as caught:
        read_scan(scan.folder)
    message = str(caught.value)
    assert message.startswith(str(scan.folder))
    assert re.search(says, message), message
    assert "\n" not in message


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


PREPARED = {
    "absent": (lambda p: p.unlink(), "no such file; run scripts/prepare_scannet.py"),
    "cut": (lambda p: cut(p, -300), f"cannot be read .*{AGAIN}"),
    "empty": (lambda p: cut(p, 0), f"cannot be read .*{AGAIN}"),
    "no file of torch": (lambda p: p.write_text("points"), f"cannot be read .*{AGAIN}"),
    "other content": (lambda p: torch.save({"xyz": 1}, p), "expected five tensors, .*got dict"),
    "four parts": (
        lambda p: torch.save((torch.zeros(1, 3),) * 4, p),
        f"expected five tensors, xyz, .*got tuple; .*{AGAIN}",
    ),
    "a number": (saved_with(0, 3), "expected five tensors"),
    "flat xyz": (saved_with(0, torch.zeros(6)), r"xyz must have shape \[6, 3\], got \[6\]"),
    "fewer colours": (
        saved_with(1, torch.zeros(5, 3)),
        rf"rgb must have shape \[6, 3\], got \[5, 3\]; .*{AGAIN}",
    ),
    "fewer objects": (saved_with(4, torch.zeros(4)), r"instances must have shape \[6\], got \[4\]"),
    "whole xyz": (saved_with(0, torch.zeros(6, 3).long()), "xyz must be floating .*got int64"),
    "real superpoints": (saved_with(2, torch.zeros(6)), "superpoints must be whole .*got float32"),
    "boolean labels": (saved_with(3, torch.zeros(6) > 0), "semantic must be whole .*got bool"),
    "no number": (saved_with(0, torch.full((6, 3), torch.nan)), "xyz must be finite, row 0"),
    "bytes as colours": (saved_with(1, torch.full((6, 3), 255.0)), "rgb must be -1 to 1, got 255"),
    "negative": (saved_with(2, torch.full((6,), -2)), "superpoints must not be negative, got -2"),
    "NYU40 labels": (
        saved_with(3, torch.tensor([-100, 0, 19, 39, 2, 2])),
        "0 to 19 or -100, got 39",
    ),
    "millimetres": (saved_with(0, torch.eye(6, 3) * 5000), "reaches over 5000 m, expected at most"),
}


@pytest.mark.parametrize("name", PREPARED)
def test_says_what_is_wrong_with_a_prepared_scan(tmp_path, name):
    breaks, says = PREPARED[name]
    path = tmp_path / "scene_refer.pth"
    save_cloud(make_cloud(), path)
    load_cloud(path)
    breaks(path)
    with pytest.raises(InputError, match=says) as caught:
        load_cloud(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_no_points_are_refused(tmp_path):
    path = tmp_path / "scene_refer.pth"
    save_cloud(make_cloud(0), path)
    with pytest.raises(InputError, match=f"holds no points; .*{AGAIN}"):
        load_cloud(path)


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
