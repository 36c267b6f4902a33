import importlib

import pytest
import torch

from detailbase.ops import graph_superpoints, mesh_superpoints, reference_superpoints
from refer3d.native.loader import runnable_variants
from tests.errors import raises


def sheet(rows, columns, height):
    """A triangulated grid over the plane; ``height`` gives z from x and y."""
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    number = y * columns + x
    a, b, c, d = number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:]
    faces = torch.stack([torch.stack([a, b, c]), torch.stack([b, d, c])], dim=1)
    x, y = 0.02 * x.float(), 0.02 * y.float()
    return torch.stack([x, y, height(x, y)], dim=-1).view(-1, 3), faces.reshape(3, -1).T


def bumpy(rng, rows=40, columns=50, roughness=0.01):
    noise = roughness * torch.rand(rows, columns, generator=rng)
    return sheet(rows, columns, lambda x, y: 0.05 * (9 * x).sin() * (7 * y).cos() + noise)


@pytest.mark.parametrize(
    ("dtype", "roughness", "k", "min_vertices"),
    [
        (torch.float32, 0, 0.01, 20),
        (torch.float64, 0.002, 0.01, 20),
        (torch.float32, 0.02, 0.01, 20),
        (torch.float64, 0, 0, 0),
        (torch.float32, 0.002, 0, 0),
        (torch.float64, 0.02, 0.5, 5),
        (torch.float32, 0.002, 0.5, 5),
    ],
)
@pytest.mark.parametrize("rule", ["area", "scannet"])
def test_matches_reference(rng, device, dtype, roughness, k, min_vertices, rule):
    vertices, faces = bumpy(rng, roughness=roughness)
    vertices, faces = vertices.to(device, dtype), faces.to(device)
    labels = mesh_superpoints(vertices, faces, k, min_vertices, rule)
    expected = reference_superpoints.mesh_superpoints(
        vertices, faces, k, min_vertices, rule == "scannet"
    )
    assert torch.equal(labels, expected)


SCANNET_PIECES = """
aaaaaaaaaaaaaaaaaaaaaaaaaaaaabbbbbbbbbbb
aaaaaaaaaaaaaaaaaaaaaaaaaaaabbbbbbbbbbbb
aaaaaaaaaaaaaaaaaaaaaaaaaaabbbbbbbbbbbbb
aaaaaaaaaaaaaaaaaacccccccccbbbbbbbbbbbbb
aaaaaaaaaaaaaaaccccccccccccbbbbbbbbbbbbb
aaaaaaaaaaaacccccccccccccccbbbbbbbbbbbbb
aaaaaaaaaaaaccccccccccccccbbbbbbbbbbbbbb
aaaaaaaaaaaaccccccccccccccbbbbbbbbbbbbbb
aaaaaaaaaaaaccccccccccccccbbbbbbbbbbbbbb
aaaaaaaaaaaaccccccccccccccbbbbbbbbbbbbbb
aaaaaaaaaaaaacccccccccccccbbbbbbbbbbbbbb
aaaaaaaaaaaaaccccccccccccbbbbbbbbbbbbbbb
"""
"""Superpoints of the mesh below by ScanNet's published algorithm, in float32 with std::sort."""


def test_repeats_scannets_program(device):
    y, x = torch.meshgrid(torch.arange(12), torch.arange(40), indexing="ij")
    noise = (37 * x + 59 * y + x * y * y) % 17 / 2**12
    box = ((x > 12) & (x < 26) & (y > 3)) / 8
    vertices, faces = sheet(12, 40, lambda *_: noise + box)
    labels = mesh_superpoints(vertices.to(device), faces.to(device), rule="scannet").tolist()
    assert "".join("abc"[label] for label in labels) == SCANNET_PIECES.replace("\n", "")


def test_known_answer(device):
    """A fold between two plane sheets, and a vertex that belongs to nothing."""
    vertices, faces = sheet(10, 21, lambda x, y: (x - 0.2).clamp(min=0) * 2)
    vertices = torch.cat([vertices, torch.tensor([[5.0, 5, 5]])]).to(device)
    labels = mesh_superpoints(vertices, faces.to(device))
    assert labels[-1] == labels.max() == 2
    x = vertices[:-1, 0]
    assert (labels[:-1][x < 0.19] == 0).all()
    assert (labels[:-1][x > 0.21] == 1).all()


def test_no_piece_is_small_that_touches_another(rng, device):
    vertices, faces = bumpy(rng, roughness=0.02)
    labels = mesh_superpoints(vertices.to(device), faces.to(device), min_vertices=30)
    sizes = torch.bincount(labels)
    assert len(sizes) > 1
    assert sizes.min() >= 30


def test_pieces_are_connected_and_numbered_in_order(rng, device):
    vertices, faces = bumpy(rng, roughness=0.01)
    labels = mesh_superpoints(vertices.to(device), faces.to(device)).cpu()
    firsts = [labels.tolist().index(label) for label in range(int(labels.max()) + 1)]
    assert firsts == sorted(firsts)
    sides = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    reached = torch.arange(len(labels))
    inside = sides[labels[sides[:, 0]] == labels[sides[:, 1]]]
    for _ in range(len(labels)):
        before = reached.clone()
        for one, other in (inside.T, inside.T.flip(0)):
            reached.scatter_reduce_(0, one, reached[other], "amin")
        if torch.equal(before, reached):
            break
    assert len(reached.unique()) == len(firsts)


def test_the_order_of_faces_does_not_matter(rng, device):
    vertices, faces = bumpy(rng)
    vertices, faces = vertices.double().to(device), faces.to(device)
    order = torch.randperm(len(faces), generator=rng).to(device)
    turned = faces[order].roll(1, dims=1)
    assert torch.equal(mesh_superpoints(vertices, turned), mesh_superpoints(vertices, faces))


@pytest.mark.parametrize("count", [0, 1, 5])
def test_no_faces(device, count):
    vertices = torch.zeros(count, 3, device=device)
    faces = torch.zeros(0, 3, dtype=torch.int64, device=device)
    assert mesh_superpoints(vertices, faces).tolist() == list(range(count))


@pytest.mark.parametrize("rule", ["area", "scannet"])
def test_degenerate_faces_are_borne(device, rule):
    vertices = torch.zeros(4, 3, device=device)
    faces = torch.tensor([[0, 0, 1], [1, 1, 1], [2, 1, 0]], device=device)
    assert mesh_superpoints(vertices, faces, rule=rule).tolist() == [0, 0, 0, 1]


def test_operator_is_registered_correctly(rng, device):
    vertices, faces = bumpy(rng, 5, 6)
    arguments = (vertices.to(device), faces.to(device), 0.01, 5, False)
    torch.library.opcheck(torch.ops.detailbase.mesh_superpoints.default, arguments)


@pytest.mark.parametrize("variant", runnable_variants())
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("rule", ["area", "scannet"])
def test_every_variant_gives_the_same(rng, variant, threads, rule):
    module = importlib.import_module(f"detailbase._cpu_{variant}")
    vertices, faces = bumpy(rng, 150, 150)
    faces = faces.contiguous()
    labels = torch.empty(len(vertices), dtype=torch.int64)
    module.mesh_superpoints(
        vertices.numpy(), faces.numpy(), 0.01, 20, rule == "scannet", threads, labels.numpy()
    )
    assert torch.equal(labels, mesh_superpoints(vertices, faces, rule=rule))


FACES = torch.tensor([[0, 1, 2]])


@pytest.mark.parametrize(
    ("vertices", "faces", "k", "message"),
    [
        (torch.zeros(3, 2), FACES, 0.01, r"vertices must have shape \[\*, 3\], got \[3, 2\]"),
        (torch.zeros(3, 3), FACES[0], 0.01, r"faces must have shape \[\*, 3\], got \[3\]"),
        (torch.zeros(3, 3).int(), FACES, 0.01, "vertices must be float32 or float64, got int32"),
        (torch.zeros(3, 3), FACES.int(), 0.01, "faces must be int64 on cpu, got int32 on cpu"),
        (torch.zeros(3, 3), FACES, -1, "k must not be negative, got -1"),
        (torch.zeros(3, 3), FACES, torch.nan, "k must not be negative, got nan"),
        (torch.zeros(3, 3), FACES + 1, 0.01, r"vertices in 0\.\.2, face 0 names 3"),
        (torch.zeros(3, 3), FACES - 1, 0.01, r"vertices in 0\.\.2, face 0 names -1"),
        (torch.full((3, 3), torch.nan), FACES, 0.01, "vertices must be finite, row 0 is not"),
    ],
)
def test_errors_name_the_argument(vertices, faces, k, message):
    with pytest.raises(ValueError, match=message):
        mesh_superpoints(vertices, faces, k)


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="rule must be 'area' or 'scannet', got 'angle'"):
        mesh_superpoints(torch.zeros(3, 3), FACES, rule="angle")


def graph(rng, device, dtype):
    """Points with normals of any length, and edges of which some come twice."""
    vertices, faces = bumpy(rng, 20, 30)
    normals = torch.randn(vertices.shape, generator=rng) / 9 + torch.tensor([0, 0, 1])
    edges = torch.cat([faces[:, :2], faces[:, 1:]])
    return vertices.to(device, dtype), normals.to(device, dtype), edges.to(device)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("k", "least"), [(0.01, 20), (0.5, 0)])
def test_graph_matches_reference(rng, device, dtype, k, least):
    inputs = graph(rng, device, dtype)
    labels = graph_superpoints(*inputs, k, least)
    assert torch.equal(labels, reference_superpoints.graph_superpoints(*inputs, k, least))
    assert len(labels.unique()) > 1


def test_graph_of_two_sheets(device):
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0]], device=device)
    up, right = [0.0, 0, 1], [1.0, 0, 0]
    normals = torch.tensor([up, up, right, right], device=device)
    edges = torch.tensor([[0, 1], [1, 2], [2, 3]], device=device)
    assert graph_superpoints(points, normals, edges, 0.1, 0).tolist() == [0, 0, 1, 1]
    assert graph_superpoints(points, normals, edges, 0.1, 3).tolist() == [0, 0, 0, 0]
    assert graph_superpoints(points, normals, edges[:0]).tolist() == [0, 1, 2, 3]


def test_graph_operator_is_registered_correctly(rng, device):
    arguments = (*graph(rng, device, torch.float32), 0.01, 5)
    torch.library.opcheck(torch.ops.detailbase.graph_superpoints.default, arguments)


def test_graph_errors_name_the_argument():
    points, edges = torch.zeros(3, 3), torch.tensor([[0, 2]])
    for arguments, names in (
        ((points, points.double(), edges), ("normals", "float32")),
        ((points, points[:2], edges), ("normals", "[3, 3]")),
        ((points, points, FACES), ("edges", "[*, 2]")),
        ((points, points, edges.int()), ("edges", "int64")),
        ((points, points, edges + 1), ("edges", "edge 0", "0..2", 3)),
        ((points, points / 0, edges), ("normals", "finite", "row 0")),
    ):
        with raises(ValueError, *names):
            graph_superpoints(*arguments)
