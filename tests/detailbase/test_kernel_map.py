import importlib

import pytest
import torch

from detailbase.ops import reference, strided_map, submanifold_map, voxelize
from detailbase.ops.kernel_map import UNBOUNDED
from refer3d.native.loader import runnable_variants


def lists(pairs):
    return pairs.inputs, pairs.outputs, pairs.starts


def strided_lists(coarse, down):
    return coarse, *lists(down.forward), *lists(down.backward)


@pytest.mark.parametrize(
    ("dtype", "count", "order"),
    [
        (torch.int32, 0, "Morton's"),
        (torch.int64, 1, "Morton's"),
        (torch.int32, 2, "shuffled"),
        (torch.int64, 40, "shuffled"),
        (torch.int64, 3000, "Morton's"),
        (torch.int32, 3000, "shuffled"),
    ],
)
def test_matches_reference(rng, make_voxels, dtype, count, order):
    voxels = make_voxels(count, dtype=dtype)
    if order == "shuffled":
        voxels = voxels[torch.randperm(len(voxels), generator=rng).to(voxels.device)]
    flat = submanifold_map(voxels)
    assert all(map(torch.equal, lists(flat.forward), reference.submanifold_map(voxels)))
    coarse, down = strided_map(voxels)
    assert coarse.dtype == dtype
    expected = reference.strided_map(voxels, UNBOUNDED)
    assert all(map(torch.equal, strided_lists(coarse, down), expected))
    assert (down.num_inputs, down.num_outputs) == (len(voxels), len(coarse))


@pytest.mark.parametrize("shape", [(7, 9, 11), (6, 10, 1), (12, 12, 12), (0, 5, 5)])
def test_odd_last_plane_is_left_out(make_voxels, shape):
    """As spconv does it, on whose networks our weights were trained."""
    voxels = make_voxels(900, 0, 11)
    coarse, down = strided_map(voxels, shape)
    expected = reference.strided_map(voxels, shape)
    assert all(map(torch.equal, strided_lists(coarse, down), expected))
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
    arrays = module.submanifold_map(voxels.numpy(), 256, threads)
    expected = reference.submanifold_map(voxels)
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
