import importlib

import numpy as np
import pytest
import torch
from torch.nn import functional

from detailbase.ops import (
    kernel_map,
    output_shape,
    reference,
    strided_map,
    submanifold_map,
    voxelize,
)
from detailbase.ops.kernel_map import ENDS
from refer3d.native.loader import runnable_variants
from tests.errors import raises


def lists(pairs):
    return pairs.inputs, pairs.outputs, pairs.starts


def all_lists(outputs, built):
    return outputs, *lists(built.forward), *lists(built.backward)


def by_definition(voxels, shape, kernel, stride=(1, 1, 1), padding=(0, 0, 0), dilation=(1, 1, 1)):
    sizes = (kernel, stride, padding, dilation)
    first, last = [-ENDS] * 3, [ENDS] * 3
    if shape is not None:
        first, last = [0] * 3, [size - 1 for size in output_shape(shape, *sizes)]
    return reference.kernel_map(voxels, first, last, *sizes)


KERNELS = [
    ((3, 3, 3), (2, 2, 2), (1, 1, 1), (1, 1, 1)),
    ((2, 2, 2), (2, 2, 2), (0, 0, 0), (1, 1, 1)),
    ((5, 5, 5), (3, 3, 3), (2, 2, 2), (1, 1, 1)),
    ((3, 3, 3), (1, 1, 1), (0, 0, 0), (1, 1, 1)),
    ((4, 2, 3), (2, 3, 1), (1, 0, 4), (1, 3, 2)),
    ((1, 1, 1), (2, 1, 5), (0, 3, 0), (1, 1, 1)),
    ((1, 7, 2), (4, 2, 1), (0, 5, 1), (1, 2, 5)),
]
"""Sizes, strides, paddings, dilations."""


@pytest.mark.parametrize(
    ("dtype", "count", "order"),
    [
        (torch.int32, 0, "Morton's"),
        (torch.int64, 1, "Morton's"),
        (torch.int32, 2, "shuffled"),
        (torch.int64, 40, "shuffled"),
        (torch.int64, 700, "Morton's"),
        (torch.int32, 700, "shuffled"),
    ],
)
def test_matches_reference(rng, make_voxels, dtype, count, order):
    voxels = make_voxels(count, dtype=dtype)
    if order == "shuffled":
        voxels = voxels[torch.randperm(len(voxels), generator=rng).to(voxels.device)]
    for kernel, dilation in (((3, 3, 3), (1, 1, 1)), ((1, 5, 3), (1, 2, 6))):
        flat = submanifold_map(voxels, kernel, dilation)
        expected = reference.submanifold_map(voxels, kernel, dilation)
        assert all(map(torch.equal, lists(flat.forward), expected))
    for kernel in KERNELS:
        for shape in (None, (9, 12, 7)):
            outputs, built = kernel_map(voxels, shape, *kernel)
            assert outputs.dtype == dtype
            expected = by_definition(voxels, shape, *kernel)
            assert all(map(torch.equal, all_lists(outputs, built), expected))
            assert (built.num_inputs, built.num_outputs) == (len(voxels), len(outputs))


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), KERNELS)
def test_reaches_what_a_dense_convolution_reaches(make_voxels, kernel, stride, padding, dilation):
    """The number of pairs at each place is torch's convolution of ones with a kernel of ones."""
    shape = (9, 12, 7)
    voxels = make_voxels(150, 0, 7)
    outputs, built = kernel_map(voxels, shape, kernel, stride, padding, dilation)
    scenes, x, y, z = voxels.unbind(dim=1)
    grid = torch.zeros(2, 1, *shape, dtype=torch.float64, device=voxels.device)
    grid[scenes, 0, x, y, z] = 1
    ones = grid.new_ones(1, 1, *kernel)
    dense = functional.conv3d(grid, ones, None, stride, padding, dilation)[:, 0]
    assert list(dense.shape[1:]) == output_shape(shape, kernel, stride, padding, dilation)
    assert sorted(outputs.tolist()) == dense.nonzero().tolist()
    counts = torch.bincount(built.forward.outputs, minlength=len(outputs))
    assert torch.equal(counts.double(), dense[tuple(outputs.T)])
    assert torch.equal(outputs, voxelize(outputs[:, 1:], outputs[:, 0])[0])  # Morton's order


@pytest.mark.parametrize("axis", range(3))
def test_large_numbers(make_voxels, axis):
    """Kernels, strides and dilations beyond a brick of voxels, along one axis."""
    voxels = make_voxels(60, -300, 300)
    one, zero = [1, 1, 1], [0, 0, 0]
    kernel, stride, padding, dilation = ([*one], [*one], [*zero], [*one])
    kernel[axis], stride[axis], padding[axis], dilation[axis] = 60, 7, 30, 11
    outputs, built = kernel_map(voxels, None, kernel, stride, padding, dilation)
    expected = by_definition(voxels, None, kernel, stride, padding, dilation)
    assert all(map(torch.equal, all_lists(outputs, built), expected))


def test_outputs_stay_within_the_dtype():
    ends = torch.iinfo(torch.int32)
    voxels = torch.tensor([[0, ends.max, 0, 0]], dtype=torch.int32)
    outputs, _ = kernel_map(voxels, None, (3, 1, 1), padding=(1, 0, 0))
    assert outputs[:, 1].tolist() == [ends.max - 1, ends.max]


@pytest.mark.parametrize("shape", [(7, 9, 11), (6, 10, 1), (12, 12, 12), (0, 5, 5)])
def test_odd_last_plane_is_left_out(make_voxels, shape):
    """As spconv does it, on whose networks our weights were trained."""
    voxels = make_voxels(900, 0, 11)
    coarse, down = strided_map(voxels, shape)
    expected = by_definition(voxels, shape, (2, 2, 2), (2, 2, 2))
    assert all(map(torch.equal, all_lists(coarse, down), expected))
    ends = torch.tensor(shape, device=voxels.device) // 2
    kept = ((voxels[:, 1:] >> 1) < ends).all(dim=1).nonzero()[:, 0]
    assert down.forward.inputs.long().sort().values.tolist() == kept.tolist()
    assert not len(coarse) or (coarse[:, 1:] < ends).all()


@pytest.mark.parametrize(
    ("low", "high"), [(0, 6), (-3, 3), (65_530, 65_542), (2**40 - 3, 2**40 + 3)]
)
def test_pairs_are_what_their_offsets_say(rng, make_voxels, low, high):
    voxels = make_voxels(300, low, high)
    flat = submanifold_map(voxels)
    axis = torch.arange(-1, 2, device=voxels.device)
    steps = torch.cartesian_prod(axis, axis, axis)[flat.forward.offsets(27)]
    places, scenes = voxels[:, 1:], voxels[:, 0]
    inputs, outputs = flat.forward.inputs, flat.forward.outputs
    assert torch.equal(places[inputs], places[outputs] + steps)
    assert torch.equal(scenes[inputs], scenes[outputs])
    # Every two voxels of a scene that touch are paired, in both directions.
    near = (places[:, None] - places).abs().amax(dim=2) <= 1
    assert flat.num_pairs == int((near & (scenes[:, None] == scenes)).sum())

    coarse, down = strided_map(voxels)
    inputs, outputs = down.forward.inputs, down.forward.outputs
    assert torch.equal(coarse[:, 1:][outputs], places[inputs] >> 1)
    bits = torch.tensor([4, 2, 1], device=voxels.device)
    assert torch.equal(((places & 1) * bits).sum(dim=1)[inputs], down.forward.offsets(8))
    assert sorted(inputs.tolist()) == list(range(len(voxels)))


def test_levels_stay_in_order(make_voxels):
    """So that no level needs sorting, and all are read in the order of memory."""
    voxels = make_voxels(3000, -300, 300)
    for _ in range(6):
        voxels, _ = strided_map(voxels)
        assert torch.equal(voxelize(voxels[:, 1:], voxels[:, 0])[0], voxels)


def test_known_answer(device):
    voxels = torch.tensor([[0, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]], device=device)
    flat = submanifold_map(voxels)
    offsets = flat.forward.offsets(27).tolist()
    ends = flat.forward.inputs.tolist(), flat.forward.outputs.tolist()
    assert sorted(zip(*ends, offsets, strict=True)) == [
        (0, 0, 13),
        (0, 1, 22),
        (1, 0, 4),
        (1, 1, 13),
        (2, 2, 13),
    ]
    assert flat.backward.offsets(27).tolist() == [26 - offset for offset in offsets]
    coarse, down = strided_map(voxels)
    assert coarse.tolist() == [[0, 0, 0, 0], [1, 0, 0, 0]]
    assert down.forward.outputs.tolist() == [0, 1, 0]
    assert down.forward.inputs.tolist() == [1, 2, 0]
    assert down.forward.offsets(8).tolist() == [0, 0, 4]


def test_the_inverse_goes_back(make_voxels):
    _, down = strided_map(make_voxels(500))
    up = down.inverse()
    assert (up.num_inputs, up.num_outputs) == (down.num_outputs, down.num_inputs)
    assert up.forward is down.backward
    ahead, back = (
        sorted(zip(one.tolist(), other.tolist(), pairs.offsets(8).tolist(), strict=True))
        for pairs, one, other in (
            (down.forward, down.forward.inputs, down.forward.outputs),
            (up.forward, up.forward.outputs, up.forward.inputs),
        )
    )
    assert ahead == back


@pytest.mark.parametrize("variant", runnable_variants())
@pytest.mark.parametrize("threads", [1, 5])
def test_every_variant_gives_the_same(make_voxels, variant, threads):
    module = importlib.import_module(f"detailbase._cpu_{variant}")
    voxels = make_voxels(9000, 0, 40).cpu()
    numbers = np.array([[3] * 3, [2] * 3, [1] * 3, [1] * 3])
    grid = np.array([[0] * 3, [19] * 3])
    outputs, *arrays = module.kernel_map(voxels.numpy(), numbers, grid, 256, threads)
    expected = reference.kernel_map(voxels, *grid.tolist(), *numbers.tolist())
    arrays = [outputs.reshape(-1, 4), *arrays]
    assert all(torch.equal(torch.from_numpy(a), b) for a, b in zip(arrays, expected, strict=True))


@pytest.mark.parametrize("build", [submanifold_map, strided_map])
@pytest.mark.parametrize(
    ("voxels", "message"),
    [
        (torch.zeros(2, 3).long(), r"voxels must have shape \[\*, 4\], got \[2, 3\]"),
        (torch.zeros(2, 4), "voxels must be int32 or int64, got float32"),
        (torch.zeros(2, 4).long(), "voxels must be distinct, rows 0 and 1 are the same"),
        (torch.tensor([[0, 0, 0, 0], [0, 0, 0, 2**21]]), "must span fewer than 2"),
    ],
)
def test_errors_name_the_argument(build, voxels, message):
    with pytest.raises(ValueError, match=message):
        build(voxels)


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda v: submanifold_map(v, 2), ("kernel", "odd", "[2, 2, 2]")),
        (lambda v: submanifold_map(v, 3, (1, 2)), ("dilation", "1..32768", "(1, 2)")),
        (lambda v: kernel_map(v, None, 0), ("kernel", "1..32768", 0)),
        (lambda v: kernel_map(v, None, 33), ("kernel", "32768 offsets", 33)),
        (lambda v: kernel_map(v, None, 3, (2, 2, 0)), ("stride", "(2, 2, 0)")),
        (lambda v: kernel_map(v, None, 3, padding=-1), ("padding", "0..32768", "-1")),
        (lambda v: kernel_map(v, (4, -1, 4), 3), ("shape", "(4, -1, 4)")),
        (lambda v: kernel_map(v + 2**62 + 1, None, 3), ("coords", "2^62")),
    ],
)
def test_errors_name_the_number(call, names):
    with raises(ValueError, *names):
        call(torch.zeros(1, 4).long())


@pytest.mark.parametrize("number", [-1, 2**15 + 1, 2**62])
def test_raw_ops_check_their_numbers(number):
    """What ``torch.ops`` calls never reads beyond its arguments."""
    voxels = torch.zeros(1, 4, dtype=torch.int64)
    sizes = [[1] * 3 for _ in range(4)]
    for place in range(4):
        wrong = [[number] * 3 if i == place else size for i, size in enumerate(sizes)]
        with pytest.raises(ValueError, match=str(number)):
            torch.ops.detailbase.kernel_map(voxels, [0] * 3, [9] * 3, *wrong)
