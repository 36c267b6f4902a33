"""Scans are read as ScanNet means them."""

import json

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from detailbase.scans.clouds import NONE
from detailbase.scans.meshes import read_mesh
from detailbase.scans.scannet import CLASSES, read_instances, read_scan, read_semantic

from .conftest import BOX, FLOOR, GROUPS, colors, surface, write_ply


def test_reads_a_scan(scan):
    cloud, missing = read_scan(scan.folder)
    vertices, _ = surface()
    assert missing == []
    # A float32 step at 20 m is 1.9e-6.
    assert_close(cloud.xyz.double().numpy(), vertices - vertices.mean(axis=0), rtol=0, atol=2e-6)
    assert cloud.rgb[0].tolist() == [-1, -1, pytest.approx(200 / 127.5 - 1)]
    assert cloud.superpoints.tolist() == [1] * 8 + [0] * 8 + [2] * BOX
    assert cloud.semantic.tolist() == [1] * FLOOR + [6] * BOX
    assert cloud.instances.tolist() == [0] * FLOOR + [4] * BOX


@pytest.mark.parametrize(
    ("absent", "unknown"),
    [
        (("labels",), ("semantic",)),
        (("objects",), ("instances",)),
        (("segments",), ("instances",)),
        (("labels", "segments", "objects"), ("semantic", "instances")),
    ],
)
def test_does_without_files(scan, absent, unknown):
    whole = read_scan(scan.folder)[0]
    for name in absent:
        getattr(scan, name).unlink()
    cloud, missing = read_scan(scan.folder)
    assert sorted(scan.path(ending) for ending in missing) == sorted(
        getattr(scan, name) for name in absent
    )
    for name in ("semantic", "instances"):
        labels = getattr(whole, name)
        expected = torch.full_like(labels, NONE) if name in unknown else labels
        assert torch.equal(getattr(cloud, name), expected), name


@pytest.mark.parametrize("has_faces", [True, False])
def test_superpoints_are_computed(scan, has_faces):
    """A floor and a wall that share no vertex, each large enough for a superpoint."""
    x, y = (a.ravel() / 20 for a in np.meshgrid(range(30), range(30), indexing="ij"))
    first = np.array([30 * i + j for i in range(29) for j in range(29)])
    floor = np.concatenate([first[:, None] + [0, 30, 1], first[:, None] + [1, 30, 31]])
    vertices = np.concatenate([np.stack([x, y, 0 * x], 1), np.stack([x, 0 * x - 1, y], 1)])
    faces = np.concatenate([floor, floor + 900]) if has_faces else ()
    write_ply(scan.mesh, vertices, faces)
    scan.segments.unlink()
    scan.labels.unlink()
    assert read_scan(scan.folder)[0].superpoints.tolist() == [0] * 900 + [1] * 900


def test_classes_are_those_of_the_benchmark(tmp_path):
    labels = np.arange(45, dtype="u2")
    write_ply(tmp_path / "labels.ply", np.zeros((45, 3)), label=labels)
    classes = read_semantic(tmp_path / "labels.ply", 45)
    assert [classes[label] for label in CLASSES] == list(range(20))
    assert (np.delete(classes, CLASSES) == NONE).all()


def test_the_first_of_two_groups_has_a_segment(scan):
    second = {"id": 9, "segments": [20, 3]}
    scan.objects.write_text(json.dumps({"segGroups": [*GROUPS[1:], second]}))
    instances = read_instances(scan.objects, np.array([3, 7, 20]))
    assert instances.tolist() == [9, NONE, 4]


def test_object_id_stands_in_for_id(scan):
    scan.objects.write_text(json.dumps({"segGroups": [{"objectId": 5, "segments": [20]}]}))
    assert read_instances(scan.objects, np.array([3, 20])).tolist() == [NONE, 5]


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize(("dtype", "scale"), [("u1", 1), ("f4", 1 / 255), ("f4", 1), ("i4", 1)])
def test_colours_are_bytes_or_shares(scan, text, dtype, scale):
    scan.write_mesh(text=text, **colors(dtype, scale))
    mesh = read_mesh(scan.mesh)
    assert mesh.colors.dtype == np.uint8
    assert mesh.colors[:, 0].tolist() == list(range(0, 240, 10))


def test_without_colours_all_are_grey(scan, caplog):
    scan.write_mesh()
    assert (read_mesh(scan.mesh).colors == 127).all()
    assert "no colours" in caplog.text


@pytest.mark.parametrize("names", [("diffuse_red", "diffuse_green", "diffuse_blue"), tuple("rgb")])
def test_colours_have_several_names(scan, names):
    scan.write_mesh(**dict(zip(names, colors().values(), strict=True)))
    expected = np.stack([*colors().values()], axis=1)
    assert np.array_equal(read_mesh(scan.mesh).colors, expected)


def test_shares_a_little_beyond_one_are_shares(scan):
    columns = colors("f4", scale=1 / 255)
    columns["red"][3], columns["green"][4] = 1.0001, 0.4999 / 255
    scan.write_mesh(**columns)
    result = read_mesh(scan.mesh).colors
    assert (result[3, 0], result[4, 1]) == (255, 0)
    assert np.array_equal(result[5:], np.stack([*colors().values()], axis=1)[5:])


def test_faces_of_two_corners_are_none(scan):
    scan.write_mesh([(0, 1), (2, 3)], text=True)
    assert read_mesh(scan.mesh).faces.shape == (0, 3)


def test_dark_bytes_stay_dark(scan):
    """Whole numbers of 0 and 1 are bytes, no shares."""
    scan.write_mesh(**{name: np.ones(FLOOR + BOX, "u1") for name in ("red", "green", "blue")})
    assert (read_mesh(scan.mesh).colors == 1).all()


@pytest.mark.parametrize("text", [False, True])
def test_polygons_are_cut_into_triangles(scan, text):
    scan.write_mesh([(0, 1, 5, 4), (8, 9, 10), (0, 1, 2, 6, 5)], text=text)
    triangles = [[0, 1, 5], [0, 5, 4], [8, 9, 10], [0, 1, 2], [0, 2, 6], [0, 6, 5]]
    assert read_mesh(scan.mesh).faces.tolist() == triangles
