"""The CUDA kernels of voxels and segments, run on the CPU thread by thread."""

import pytest
import torch
from torch.testing import assert_close

from detailbase.ops import kernel_map, segment_reduce, strided_map, submanifold_map, voxelize
from tests.emulation import emulation

pytestmark = pytest.mark.slow  # g++ compiles the kernels


def cloud(rng, count, dtype=torch.int64, low=-40, high=30):
    coords = torch.randint(low, high, (count, 3), generator=rng, dtype=dtype)
    return coords, torch.randint(3, 5, (count,), generator=rng, dtype=dtype)


def same_map(got, want):
    for one, other in ((got.forward, want.forward), (got.backward, want.backward)):
        for name in ("inputs", "outputs", "starts"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
        assert one.is_mirrored == other.is_mirrored
    assert vars(got).keys() == vars(want).keys()
    assert (got.num_inputs, got.num_outputs) == (want.num_inputs, want.num_outputs)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("count", [0, 1, 700])
def test_emulated_voxels_are_those_of_the_cpu(rng, dtype, count):
    coords, batch = cloud(rng, count, dtype, -4, 5)
    want = voxelize(coords, batch)
    with emulation():
        got = voxelize(coords, batch)
    for ours, theirs in zip(got, want, strict=True):
        assert torch.equal(ours, theirs)
        assert ours.dtype == theirs.dtype


def test_emulated_voxels_may_lie_far_off(rng):
    coords = torch.tensor([[2**20 - 1, -(2**20), 5], [-(2**20), 7, 2**20 - 1], [0, 0, 0]])
    batch = torch.tensor([4, 4, 5])
    with emulation():
        got = voxelize(coords, batch)
        with pytest.raises(ValueError, match=r"fewer than 2\^21 voxels"):
            voxelize(2 * coords, batch)
    for ours, theirs in zip(got, voxelize(coords, batch), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("count", [0, 1, 900])
def test_emulated_maps_are_those_of_the_cpu(rng, dtype, count):
    voxels = voxelize(*cloud(rng, count, dtype, -5, 7))[0]
    voxels = voxels[torch.randperm(len(voxels), generator=rng)]
    kernels = [(3, 2, 1, 1), ((4, 2, 3), (2, 3, 1), (1, 0, 4), (1, 3, 2))]

    def build():
        flat = submanifold_map(voxels), submanifold_map(voxels, (3, 1, 5), (1, 1, 2))
        grids = (None, (5, 6, 7))
        return flat, [kernel_map(voxels, grid, *sizes) for sizes in kernels for grid in grids]

    want, want_strided = build()
    with emulation():
        got, strided = build()
    for ours, theirs in zip(got, want, strict=True):
        same_map(ours, theirs)
    for (outputs, ours), (want_outputs, theirs) in zip(strided, want_strided, strict=True):
        same_map(ours, theirs)
        assert torch.equal(outputs, want_outputs)


def test_emulated_maps_do_not_reach_around_the_grid():
    voxels = torch.tensor([[0, 0, 0, 0], [0, 2**21 - 1, 0, 0], [0, 0, 2**21 - 1, 2**21 - 1]])
    with emulation():
        got = submanifold_map(voxels)
    same_map(got, submanifold_map(voxels))
    assert got.num_pairs == 3


def test_emulated_maps_of_a_grid_too_small_for_any_coarse_voxel(rng):
    voxels = voxelize(*cloud(rng, 30, low=0, high=9))[0]
    want_coarse, want = strided_map(voxels, (9, 1, 9))
    with emulation():
        coarse, got = strided_map(voxels, (9, 1, 9))
    assert len(coarse) == len(want_coarse) == 0
    same_map(got, want)


def test_emulated_maps_refuse_voxels_that_occur_twice():
    voxels = torch.tensor([[0, 1, 2, 3], [0, 0, 0, 0], [0, 1, 2, 3]])
    with emulation():
        for build in (submanifold_map, strided_map):
            with pytest.raises(ValueError, match="must be distinct, rows 0 and 2 are the same"):
                build(voxels)


@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
@pytest.mark.parametrize(
    ("rows", "channels", "count"), [(500, 3, 40), (1500, 33, 3), (0, 3, 2), (9, 0, 2)]
)
def test_emulated_segments_are_those_of_the_cpu(rng, reduce, rows, channels, count):
    values = torch.randn(rows, channels, generator=rng, dtype=torch.float64)
    values = (10 * values).round() / 10  # equal ones
    if rows > 300:
        values[7, 1] = values[300, 2] = float("nan")
    segments = torch.randint(0, count - 1, (rows,), generator=rng)  # the last has no rows
    values.requires_grad_()
    toward = torch.randn(count, channels, generator=rng, dtype=torch.float64)

    def compute():
        out = segment_reduce(values, segments, count, reduce)
        return out, *torch.autograd.grad(out, values, toward)

    want = compute()
    with emulation():
        got = compute()
    for ours, theirs in zip(got, want, strict=True):
        # Up to 750 terms of order 1, added in another order; measured worst 6e-14.
        assert_close(ours, theirs, rtol=1e-14, atol=2e-13, equal_nan=True)


def test_emulated_segments_that_do_not_exist_are_named():
    with emulation(), pytest.raises(ValueError, match=r"segments must lie in 0\.\.1, row 1 is 2"):
        segment_reduce(torch.ones(2, 1), torch.tensor([0, 2]), 2)
