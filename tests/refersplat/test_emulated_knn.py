"""The CUDA kernels of the nearest neighbours, run on the CPU thread by thread."""

import pytest
import torch
from torch.testing import assert_close

from refersplat.ops import knn, reference
from tests.emulation import emulation

pytestmark = pytest.mark.slow  # g++ compiles the kernels


def both(queries, points, k):
    with emulation():
        got = knn(queries, points, k)
    want = reference.knn(queries, points, k)
    assert_close(got[0], want[0], rtol=1e-12, atol=1e-12)
    assert torch.equal(got[1], want[1])


@pytest.mark.parametrize(("count", "k"), [(1, 1), (15, 3), (16, 4), (17, 5), (700, 4), (300, 20)])
def test_emulated_neighbours_of_the_points_themselves(rng, count, k):
    points = torch.randn(count, 3, generator=rng, dtype=torch.float64)
    both(points, points, k)


def test_emulated_neighbours_of_others(rng):
    points = torch.randn(300, 3, generator=rng, dtype=torch.float64)
    both(3 * torch.randn(50, 3, generator=rng, dtype=torch.float64), points, 4)
    both(points[:50], points, 4)  # which begin where the points do
    both(points, points[:50], 4)
    for queries, k in ((points[:0], 4), (points, 0)):
        with emulation():
            assert knn(queries, points, k)[1].shape == (len(queries), k)


def test_emulated_ties_go_to_the_lower_index(rng):
    points = torch.randint(0, 3, (200, 3), generator=rng).double()
    both(points, points, 4)
    both(points, torch.zeros(200, 3, dtype=torch.float64), 16)
    # Of twelve a side, so that boxes' sides are as far as points.
    axis = torch.arange(12.0, dtype=torch.float64)
    lattice = torch.cartesian_prod(axis, axis, axis)[torch.randperm(12**3, generator=rng)]
    both(lattice, lattice, 4)


def test_emulated_clusters_and_far_outliers(rng):
    points = torch.randn(300, 3, generator=rng, dtype=torch.float64)
    points[:100] *= 1e-6
    points[200] = torch.tensor([1e9, -1e9, 1e9])
    points[:, 2] = 0  # a plane has no depth
    both(points, points, 4)


def test_emulated_search_refuses_what_is_not_finite():
    points = torch.eye(3)
    points[1, 1] = torch.inf
    with emulation(), pytest.raises(ValueError, match="must be finite"):
        knn(points, points, 1)
