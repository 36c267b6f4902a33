import importlib
import sys

import pytest
import torch

from detailbase.ops import reference, voxelize
from refer3d import native
from refer3d.native.loader import runnable_variants


def points(rng, count, dtype=torch.int64, low=-20, high=20, device="cpu"):
    coords = torch.randint(low, high, (count, 3), generator=rng, dtype=dtype)
    batch = torch.randint(0, 3, (count,), generator=rng, dtype=dtype)
    return coords.to(device), batch.to(device)


@pytest.mark.parametrize(
    ("dtype", "count", "low", "high"),
    [
        (torch.int32, 0, -20, 20),
        (torch.int64, 1, -100_000, 100_000),
        (torch.int32, 2, 0, 3),
        (torch.int64, 500, 0, 3),
        (torch.int32, 500, -20, 20),
        (torch.int64, 60_000, -20, 20),
        (torch.int32, 60_000, -100_000, 100_000),
    ],
)
def test_matches_reference(rng, device, dtype, count, low, high):
    coords, batch = points(rng, count, dtype, low, high, device)
    voxels, point_to_voxel = voxelize(coords, batch)
    expected_voxels, expected_point_to_voxel = reference.voxelize(coords, batch)
    assert voxels.dtype == dtype
    assert torch.equal(voxels, expected_voxels)
    assert torch.equal(point_to_voxel, expected_point_to_voxel)


def test_points_find_their_own_voxel(rng, device):
    coords, batch = points(rng, 3000, device=device)
    voxels, point_to_voxel = voxelize(coords, batch)
    assert len(torch.unique(voxels, dim=0)) == len(voxels)
    assert torch.equal(voxels[point_to_voxel], torch.cat([batch[:, None], coords], dim=1))


def test_known_answer(device):
    coords = torch.tensor([[1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 1], [9, 9, 9]], device=device)
    voxels, point_to_voxel = voxelize(coords, torch.tensor([0, 0, 0, 0, -1], device=device))
    assert voxels.tolist() == [[-1, 9, 9, 9], [0, 0, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0]]
    assert point_to_voxel.tolist() == [3, 2, 1, 2, 0]


def test_shifting_a_cloud_shifts_its_voxels(rng, device):
    coords, batch = points(rng, 1000, low=0, device=device)
    voxels, point_to_voxel = voxelize(coords, batch)
    shift = torch.tensor([1 << 16, -(1 << 20), 1 << 40], device=device)
    shifted, same = voxelize(coords + shift, batch)
    assert torch.equal(shifted[:, 1:], voxels[:, 1:] + shift)
    assert torch.equal(same, point_to_voxel)


def test_the_largest_extent(device):
    coords = torch.tensor([[0, 0, 0], [2**21 - 1] * 3, [2**21 - 1, 0, 0]], device=device)
    voxels, _ = voxelize(coords, torch.tensor([0, 1, 1], device=device))
    assert voxels[:, 1:].tolist() == [[0, 0, 0], [2**21 - 1, 0, 0], [2**21 - 1] * 3]


def test_operator_is_registered_correctly(rng, device):
    torch.library.opcheck(torch.ops.detailbase.voxelize.default, points(rng, 40, device=device))


@pytest.mark.parametrize("variant", runnable_variants())
def test_every_variant_gives_the_same(rng, variant):
    module = importlib.import_module(f"detailbase._cpu_{variant}")
    coords, batch = points(rng, 50_000)
    expected_voxels, expected_point_to_voxel = reference.voxelize(coords, batch)
    point_to_voxel = torch.empty(len(coords), dtype=torch.int64)
    voxels = module.voxelize(coords.numpy(), batch.numpy(), 2, point_to_voxel.numpy())
    assert torch.equal(torch.from_numpy(voxels).view(-1, 4), expected_voxels)
    assert torch.equal(point_to_voxel, expected_point_to_voxel)


def test_does_not_depend_on_threads(rng, monkeypatch):
    coords, batch = points(rng, 200_000)
    expected = voxelize(coords, batch)
    for threads in (1, 3, 8):
        monkeypatch.setattr(
            sys.modules[voxelize.__module__], "num_threads", lambda threads=threads: threads
        )
        assert all(map(torch.equal, voxelize(coords, batch), expected))


@pytest.mark.parametrize(
    ("coords", "batch", "message"),
    [
        (torch.zeros(2, 2).long(), torch.zeros(2).long(), r"coords must have shape \[\*, 3\]"),
        (torch.zeros(2, 3).long(), torch.zeros(3).long(), r"batch must have shape \[2\], got"),
        (torch.zeros(2, 3), torch.zeros(2), "coords must be int32 or int64, got float32"),
        (torch.zeros(2, 3).long(), torch.zeros(2).int(), "batch must match coords"),
        (torch.tensor([[0, 0, 0], [0, 2**21, 0]]), torch.zeros(2).long(), "fewer than 2.21 vox"),
        (
            torch.tensor([[0, 0, 0], [2**21 - 1, 0, 0]]),
            torch.tensor([0, 2]),
            "fewer in a large batch",
        ),
    ],
)
def test_errors_name_the_argument(coords, batch, message):
    with pytest.raises(ValueError, match=message):
        voxelize(coords, batch)


def test_the_reference_refuses_the_same_extents():
    coords, batch = torch.tensor([[0, 0, 0], [0, 2**21, 0]]), torch.tensor([0, 0])
    with pytest.raises(ValueError, match="is the cloud in metres"):
        reference.voxelize(coords, batch)


def test_compiled_code_is_used():
    assert native.backend("detailbase").startswith("cpu-")
