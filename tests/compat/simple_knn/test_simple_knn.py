import torch
from torch.testing import assert_close

from simple_knn._C import distCUDA2
from tests.errors import raises


def test_known_distances():
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3], [100, 0, 0]])
    assert distCUDA2(points)[0] == (1 + 4 + 9) / 3
    assert distCUDA2(points)[4] == (99**2 + 100**2 + 100**2 + 4) / 3


def test_equals_all_pairs(rng):
    points = torch.randn(300, 3, generator=rng)
    squared = (points[:, None] - points).square().sum(dim=2).fill_diagonal_(torch.inf)
    # Sums of three squares; measured worst 1.2e-7 relative.
    assert_close(
        distCUDA2(points), squared.topk(3, largest=False).values.mean(dim=1), rtol=6e-7, atol=0
    )


def test_initial_scales_of_a_3dgs_repository(rng):
    points = torch.rand(50, 3, generator=rng)
    points[:5] = points[5]
    dist2 = torch.clamp_min(distCUDA2(points), 0.0000001)
    scales = torch.log(torch.sqrt(dist2))[..., None].repeat(1, 3)
    assert scales.shape == (50, 3)
    assert scales.isfinite().all()


def test_fewer_than_three_others_are_all_that_count():
    assert distCUDA2(torch.tensor([[0.0, 0, 0], [0, 2, 0]])).tolist() == [4, 4]


def test_one_point_has_no_neighbours():
    with raises(ValueError, "points", 2, 1):
        distCUDA2(torch.zeros(1, 3))
    with raises(ValueError, "points", "[*, 3]", "[4, 2]"):
        distCUDA2(torch.zeros(4, 2))
