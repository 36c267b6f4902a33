import pytest
import torch
from torch.testing import assert_close

from pointgroup_ops import Voxelization, Voxelization_Idx, voxelization, voxelization_idx
from tests.errors import raises

COORDS = torch.tensor([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 9, 0], [0, 1, 0, 0]])
FEATURES = torch.tensor([[1.0, 2], [3, 4], [5, 6], [7, 10]])


def test_known_answer(device):
    voxels, point_to_voxel, voxel_to_points = voxelization_idx(COORDS.to(device), 2, 4)
    assert voxels.tolist() == [[0, 0, 9, 0], [0, 1, 0, 0], [1, 0, 0, 0]]
    assert point_to_voxel.tolist() == [1, 2, 0, 1]
    assert voxel_to_points.tolist() == [[1, 2, 0], [2, 0, 3], [1, 1, 0]]
    assert point_to_voxel.dtype == voxel_to_points.dtype == torch.int32


@pytest.mark.parametrize(
    ("mode", "expected"), [(1, [7, 10]), (2, [1, 2]), (3, [8, 12]), (4, [4, 6])]
)
def test_modes(device, mode, expected):
    table = Voxelization_Idx.apply(COORDS.to(device), 2, mode)[2]
    out = Voxelization.apply(FEATURES.to(device), table, mode)
    assert out.tolist() == [[5, 6], expected, [3, 4]]


def test_equals_a_mean_over_points(rng, device):
    coords = torch.randint(0, 6, (2000, 4), generator=rng).clamp(max=5).to(device)
    features = torch.randn(2000, 5, generator=rng).to(device)
    voxels, point_to_voxel, table = voxelization_idx(coords, 6, 4)
    expected = torch.stack(
        [features[point_to_voxel == voxel].mean(dim=0) for voxel in range(len(voxels))]
    )
    # A few terms of order 1, in the same or another order; measured worst 2.4e-7.
    assert_close(voxelization(features, table, 4), expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(voxels[point_to_voxel.long()], coords)


@pytest.mark.parametrize("mode", [3, 4])
def test_gradients_match_finite_differences(mode):
    table = voxelization_idx(COORDS, 2, mode)[2]
    features = FEATURES.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda f: voxelization(f, table, mode), (features,))


def test_no_points(device):
    voxels, point_to_voxel, table = voxelization_idx(COORDS[:0].to(device), 1, 4)
    assert (voxels.shape, point_to_voxel.shape, table.shape) == ((0, 4), (0,), (0, 1))
    assert voxelization(FEATURES[:0].to(device), table, 4).shape == (0, 2)


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: voxelization_idx(COORDS[:, :3], 2), ("coords", "[*, 4]")),
        (lambda: voxelization_idx(COORDS, 1), ("batch indices", "0..0", "0..1")),
        (lambda: voxelization_idx(COORDS, 2, 5), ("mode", 5)),
        (lambda: voxelization(FEATURES[0], COORDS.int()), ("feats",)),
    ],
)
def test_errors_name_the_argument(call, names):
    with raises(ValueError, *names):
        call()
