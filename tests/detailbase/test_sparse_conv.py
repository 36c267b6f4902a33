import importlib
from dataclasses import replace

import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

from detailbase.ops import Pairs, reference, sparse_conv, strided_map, submanifold_map
from refer3d.native import load, operators
from refer3d.native.loader import runnable_variants


def maps(voxels):
    down = strided_map(voxels)[1]
    return {"submanifold": submanifold_map(voxels), "down": down, "up": down.inverse()}


def inputs(rng, kernel_map, channels, width, dtype=torch.float32, device="cpu"):
    shapes = [(kernel_map.num_inputs, channels), (kernel_map.volume, channels, width)]
    return [torch.randn(s, generator=rng, dtype=dtype).to(device) for s in shapes]


def by_definition(features, weight, kernel_map, bias=None, residual=None, relu=False):
    p = kernel_map.forward
    pairs = (p.inputs, p.outputs, p.starts, p.is_mirrored)
    epilogue = (bias, residual, relu)
    return reference.sparse_conv(features, weight, *epilogue, kernel_map.num_outputs, *pairs)


@pytest.mark.parametrize("kind", ["submanifold", "down", "up"])
@pytest.mark.parametrize(
    ("dtype", "count", "channels", "width"),
    [
        (torch.float32, 0, 3, 4),
        (torch.float64, 1, 1, 1),
        (torch.float32, 40, 6, 32),
        (torch.float64, 700, 33, 17),
        (torch.float32, 2000, 32, 64),
        (torch.float32, 300, 300, 5),
        (torch.float64, 9, 0, 2),
    ],
)
def test_matches_reference(rng, device, make_voxels, kind, dtype, count, channels, width):
    kernel_map = maps(make_voxels(count))[kind]
    features, weight = inputs(rng, kernel_map, channels, width, dtype, device)
    out = sparse_conv(features, weight, kernel_map)
    expected = by_definition(features, weight, kernel_map)
    # Up to 27 * 300 products of order 1, added in another order; measured worst 3e-5 in float32.
    tolerance = {torch.float32: 2e-4, torch.float64: 4e-13}[dtype]
    assert_close(out, expected, rtol=1e-5 if dtype == torch.float32 else 1e-13, atol=tolerance)


@pytest.fixture
def medium_precision():
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("kind", ["submanifold", "down", "up"])
@pytest.mark.parametrize(("channels", "width"), [(6, 32), (33, 17), (64, 64), (301, 5)])
def test_medium_precision_rounds_what_is_multiplied(
    rng, make_voxels, kind, channels, width, medium_precision
):
    native = load("detailbase")
    is_rounding = native is not None and native.has_bfloat16()
    kernel_map = maps(make_voxels(700).cpu())[kind]
    features, weight = inputs(rng, kernel_map, channels, width)
    features[0, 0] = torch.nan
    extras = [torch.randn(width, generator=rng), torch.randn(kernel_map.num_outputs, width)]
    out = sparse_conv(features, weight, kernel_map, bias=extras[0], residual=extras[1], relu=True)
    if is_rounding:  # sums, bias and residual are float32
        features, weight = features.bfloat16().float(), weight.bfloat16().float()
    expected = by_definition(features, weight, kernel_map, *extras, relu=True)
    assert out.isnan().any()
    assert_close(out, expected, rtol=1e-5, atol=2e-4, equal_nan=True)


@pytest.mark.parametrize("kind", ["submanifold", "down", "up"])
@pytest.mark.parametrize("relu", [False, True])
def test_gradients_match_reference(rng, device, make_voxels, kind, relu):
    kernel_map = maps(make_voxels(600))[kind]
    leaves = inputs(rng, kernel_map, 13, 37, torch.float64, device)
    leaves.append(torch.randn(37, generator=rng, dtype=torch.float64).to(device))
    size = (kernel_map.num_outputs, 37)
    leaves.append(torch.randn(size, generator=rng, dtype=torch.float64).to(device))
    for leaf in leaves:
        leaf.requires_grad_()
    features, weight, bias, residual = leaves
    toward = torch.randn(size, generator=rng, dtype=torch.float64).to(device)
    got, want = (
        torch.autograd.grad(
            op(features, weight, kernel_map, bias=bias, residual=residual, relu=relu),
            leaves,
            toward,
        )
        for op in (sparse_conv, by_definition)
    )
    names = ["features", "weight", "bias", "residual"]
    for name, one, other in zip(names, got, want, strict=True):
        assert other.abs().max() > 0, name
        # Up to 27 * 600 products of order 1 in float64; measured worst 3e-13.
        assert_close(one, other, rtol=1e-11, atol=2e-12, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("kind", ["submanifold", "down", "up"])
def test_gradients_match_finite_differences(rng, make_voxels, kind):
    kernel_map = maps(make_voxels(6, 0, 3).cpu())[kind]
    features, weight = inputs(rng, kernel_map, 2, 3, torch.float64)
    assert torch.autograd.gradcheck(
        lambda f, w: sparse_conv(f, w, kernel_map),
        (features.requires_grad_(), weight.requires_grad_()),
    )


def test_operator_is_registered_correctly(rng, device, make_voxels):
    kernel_map = submanifold_map(make_voxels(30))
    features, weight = inputs(rng, kernel_map, 3, 5, device=device)
    ahead = (kernel_map.forward.inputs, kernel_map.forward.outputs, kernel_map.forward.starts)
    toward = torch.randn(kernel_map.num_outputs, 5, generator=rng).to(device)
    torch.library.opcheck(
        torch.ops.detailbase.sparse_conv.default,
        (
            *(features, weight, toward[0].clone(), toward, True),
            *(kernel_map.num_outputs, *ahead, False),
        ),
    )
    torch.library.opcheck(
        torch.ops.detailbase.sparse_conv_weight_grad.default,
        (features, toward, 27, *ahead, False),
    )


def test_a_full_box_is_a_dense_convolution(rng, device):
    axis = torch.arange(4, device=device)
    places = torch.cartesian_prod(axis, axis, axis)
    voxels = torch.cat([torch.zeros_like(places[:, :1]), places], dim=1)
    kernels = maps(voxels)
    features, weight = inputs(rng, kernels["submanifold"], 5, 7, torch.float64, device)
    grid = features.T.reshape(1, 5, 4, 4, 4)
    dense = functional.conv3d(grid, weight.view(3, 3, 3, 5, 7).permute(4, 3, 0, 1, 2), padding=1)
    out = sparse_conv(features, weight, kernels["submanifold"])
    # 135 products of order 1 in float64; measured worst 2e-14.
    assert_close(out, dense.view(7, 64).T, rtol=0, atol=1e-13)

    weight = weight[:8]
    small = weight.view(2, 2, 2, 5, 7).permute(4, 3, 0, 1, 2)
    out = sparse_conv(features, weight, kernels["down"])  # its outputs are in Morton's order
    x, y, z = strided_map(voxels)[0][:, 1:].unbind(dim=1)
    expected = functional.conv3d(grid, small, stride=2)[0, :, x, y, z].T
    assert_close(out, expected, rtol=0, atol=1e-13)
    back = sparse_conv(out, weight.mT, kernels["up"])
    dense = torch.zeros(1, 7, 2, 2, 2, dtype=torch.float64, device=device)
    dense[0, :, x, y, z] = out.T
    expected = functional.conv_transpose3d(dense, small, stride=2)
    assert_close(back, expected.view(5, 64).T, rtol=0, atol=1e-12)


def test_known_answer(device):
    voxels = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1]], device=device)
    weight = torch.zeros(27, 1, 2, device=device)
    weight[13, 0] = torch.tensor([1.0, 10])  # the voxel itself
    weight[14, 0] = torch.tensor([0.0, 100])  # the next along z
    features = torch.tensor([[1.0], [2]], device=device)
    kernel_map = submanifold_map(voxels)
    assert sparse_conv(features, weight, kernel_map).tolist() == [[1, 210], [2, 20]]
    bias = torch.tensor([-2.0, 0], device=device)
    residual = torch.tensor([[0.0, 5], [0.5, 0]], device=device)
    out = sparse_conv(features, weight, kernel_map, bias=bias, residual=residual, relu=True)
    assert out.tolist() == [[0, 215], [0.5, 20]]


def test_a_weight_may_lie_in_any_order(rng, device, make_voxels):
    kernel_map = submanifold_map(make_voxels(100))
    features, weight = inputs(rng, kernel_map, 6, 9, device=device)
    published = weight.permute(2, 0, 1).contiguous()  # (out, kernel, in)
    expected = sparse_conv(features, weight, kernel_map)
    assert torch.equal(sparse_conv(features, published.permute(1, 2, 0), kernel_map), expected)


def test_shuffled_voxels_give_shuffled_features(rng, device, make_voxels):
    voxels = make_voxels(500)
    order = torch.randperm(len(voxels), generator=rng).to(device)
    kernel_map = submanifold_map(voxels)
    features, weight = inputs(rng, kernel_map, 6, 9, device=device)
    out = sparse_conv(features[order], weight, submanifold_map(voxels[order]))
    assert torch.equal(out, sparse_conv(features, weight, kernel_map)[order])


def test_a_nan_stays_where_it_is_seen(device):
    voxels = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1], [0, 9, 9, 9]], device=device)
    features = torch.tensor([[torch.nan], [1], [1]], device=device)
    weight = torch.ones(27, 1, 1, device=device)
    out = sparse_conv(features, weight, submanifold_map(voxels), relu=True)
    assert out.isnan().flatten().tolist() == [True, True, False]


@pytest.mark.parametrize("variant", runnable_variants())
def test_every_variant_gives_the_same(rng, make_voxels, variant):
    module = importlib.import_module(f"detailbase._cpu_{variant}")
    kernel_map = submanifold_map(make_voxels(3000).cpu())
    pairs = kernel_map.forward
    features, weight = inputs(rng, kernel_map, 20, 40)
    none, out = torch.empty(0).numpy(), torch.empty(kernel_map.num_outputs, 40)
    arrays = [pairs.inputs.numpy(), pairs.outputs.numpy(), pairs.starts.numpy()]
    module.sparse_conv(
        *(features.numpy(), weight.numpy(), *arrays, 256, False, none, none, False, 2, out.numpy())
    )
    # Up to 27 * 20 products of order 1 in another order; measured worst 2e-5.
    assert_close(out, by_definition(features, weight, kernel_map), rtol=1e-5, atol=1e-4)


def test_does_not_depend_on_threads(rng, make_voxels, monkeypatch):
    kernel_map = submanifold_map(make_voxels(9000).cpu())
    leaves = [leaf.requires_grad_() for leaf in inputs(rng, kernel_map, 10, 20)]

    def run():
        out = sparse_conv(*leaves, kernel_map)
        return [out, *torch.autograd.grad(out.square().sum(), leaves)]

    expected = run()
    for threads in (1, 3, 8):
        monkeypatch.setattr(operators, "num_threads", lambda threads=threads: threads)
        assert all(map(torch.equal, run(), expected))


def test_maps_elsewhere_are_named():
    kernel_map = submanifold_map(torch.tensor([[0, 0, 0, 0], [0, 0, 0, 5]]))
    ahead = kernel_map.forward
    arrays = (ahead.inputs, ahead.outputs, ahead.starts)
    elsewhere = replace(kernel_map, forward=Pairs(*(array.to("meta") for array in arrays)))
    with pytest.raises(ValueError, match="kernel_map must be on cpu like features, got meta"):
        sparse_conv(torch.zeros(2, 6), torch.zeros(27, 6, 4), elsewhere)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": torch.zeros(3, 6)}, r"features must have shape \[2, \*\], got \[3, 6\]"),
        ({"weight": torch.zeros(27, 5, 4)}, r"weight must have shape \[27, 6, \*\], got"),
        ({"weight": torch.zeros(8, 6, 4)}, r"weight must have shape \[27, 6, \*\], got \[8, 6, 4"),
        ({"weight": torch.zeros(27, 6, 4).double()}, "weight must match features"),
        ({"bias": torch.zeros(5)}, r"bias must have shape \[4\], got \[5\]"),
        ({"bias": torch.zeros(4).double()}, "bias must match features"),
        ({"residual": torch.zeros(2, 5)}, r"residual must have shape \[2, 4\], got \[2, 5\]"),
        (
            {"features": torch.zeros(2, 6).long(), "weight": torch.zeros(27, 6, 4).long()},
            "features must have a floating dtype, got int64",
        ),
    ],
)
def test_errors_name_the_argument(change, message):
    kernel_map = submanifold_map(torch.tensor([[0, 0, 0, 0], [0, 0, 0, 5]]))
    arguments = {"features": torch.zeros(2, 6), "weight": torch.zeros(27, 6, 4), **change}
    with pytest.raises(ValueError, match=message):
        sparse_conv(kernel_map=kernel_map, **arguments)
