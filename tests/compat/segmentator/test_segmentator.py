from types import SimpleNamespace

import torch
from torch.testing import assert_close

import segmentator
from detailbase.ops import mesh_superpoints
from tests.detailbase.test_superpoints import bumpy
from tests.errors import raises


def test_as_spformers_preparation_calls_it(rng):
    """Loads a mesh, segments it, and takes the labels as groups of points."""
    vertices, faces = bumpy(rng)
    superpoint = segmentator.segment_mesh(vertices, faces.int()).numpy()
    assert superpoint.dtype == "int64"
    assert sorted(set(superpoint)) == list(range(superpoint.max() + 1))
    wanted = mesh_superpoints(vertices, faces, rule="scannet")
    assert (superpoint == wanted.numpy()).all()
    assert segmentator.segment_mesh(vertices, faces, kThresh=1e6, segMinVerts=1).max() == 0


def test_points_are_segmented_as_their_mesh(rng):
    """With the mesh's edges and normals, which are those of ScanNet's program in another order."""
    vertices, faces = bumpy(rng, roughness=0.002)
    mesh = SimpleNamespace(vertices=vertices.numpy(), faces=faces.numpy())
    normals = torch.from_numpy(segmentator.compute_vn(mesh))
    edges = faces[:, [0, 1, 0, 2, 2, 1]].reshape(-1, 2)
    points = segmentator.segment_point(vertices, normals, edges, 0.01, 20)
    mesh = segmentator.segment_mesh(vertices, faces, 0.01, 20)
    # A last digit of a normal moves a border now and then; measured 0 of 2000 vertices.
    assert (points != mesh).float().mean() < 0.01


def test_normals_are_means_of_faces():
    vertices = torch.tensor([[0.0, 0, 0], [2, 0, 0], [0, 1, 0], [0, 0, 1], [5, 5, 5]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], [0, 1, 1]])  # up, to the right, without an area
    normals = segmentator.compute_vn(SimpleNamespace(vertices=vertices.numpy(), faces=faces))
    expected = torch.tensor([[0.5, 0, 0.5], [0, 0, 1], [0.5, 0, 0.5], [1, 0, 0], [0, 0, 0]])
    assert_close(torch.from_numpy(normals), expected)


def test_errors_name_the_argument(rng):
    vertices, faces = bumpy(rng)
    with raises(ValueError, "faces", len(vertices)):
        segmentator.segment_mesh(vertices, faces + 1)
    with raises(ValueError, "normals", "[2000, 3]"):
        segmentator.segment_point(vertices, vertices[:3], faces[:, :2])
