"""The CUDA kernels of sparse convolution, run on the CPU thread by thread."""

import pytest
import torch
from torch.testing import assert_close

from detailbase.ops import cuda_conv, sparse_conv, strided_map, submanifold_map, voxelize
from tests.detailbase.test_sparse_conv import by_definition
from tests.emulation import EmulatedKernels, emulation

pytestmark = pytest.mark.slow  # g++ compiles the kernels


@pytest.fixture
def exact():
    """Whatever another test leaves behind."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


def make_map(rng, count, kind):
    coords = torch.randint(0, 8, (count, 3), generator=rng)
    voxels = voxelize(coords, torch.zeros(count, dtype=torch.int64))[0]
    if kind == "submanifold":
        return submanifold_map(voxels)
    down = strided_map(voxels)[1]
    return down if kind == "down" else down.inverse()


def normal(rng, dtype, *shape):
    return torch.randn(shape, generator=rng, dtype=torch.float64).to(dtype)


def results(op, kernel_map, leaves, toward, relu):
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    features, weight, bias, residual = leaves
    out = op(features, weight, kernel_map, bias=bias, residual=residual, relu=relu)
    return out, *torch.autograd.grad(out, leaves, toward)


def make_leaves(rng, kernel_map, channels, width, dtype):
    return [
        normal(rng, dtype, kernel_map.num_inputs, channels),
        normal(rng, dtype, kernel_map.volume, channels, width) / max(1, channels) ** 0.5,
        normal(rng, dtype, width),
        normal(rng, dtype, kernel_map.num_outputs, width),
    ]


@pytest.mark.parametrize(
    ("backwards", "kind", "count", "channels", "width"),
    [
        (False, "submanifold", 300, 35, 70),
        (True, "submanifold", 300, 8, 32),
        (True, "down", 300, 35, 70),
        (False, "up", 300, 8, 32),
        (True, "submanifold", 0, 3, 4),
        (True, "up", 1, 1, 1),
        (False, "down", 9, 0, 2),
    ],
)
def test_emulated_convolution_matches_reference(rng, backwards, kind, count, channels, width):
    kernel_map = make_map(rng, count, kind)
    leaves = make_leaves(rng, kernel_map, channels, width, torch.float64)
    toward = normal(rng, torch.float64, kernel_map.num_outputs, width)
    want = results(by_definition, kernel_map, leaves, toward, relu=True)
    with emulation(backwards):
        got = results(sparse_conv, kernel_map, leaves, toward, relu=True)
    for ours, theirs in zip(got, want, strict=True):
        assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("dtype", "precision", "tolerance", "channels", "width"),
    [
        # The operands' rounding by 2^-11, or the results' by 2^-8 and 2^-11, averaged over the
        # numbers. Measured worst 2.1e-7, 3e-4, 1.7e-3 and 2.2e-4.
        (torch.float32, "highest", 5e-7, 35, 20),
        (torch.float32, "high", 1e-3, 40, 72),
        (torch.float32, "high", 1e-3, 35, 20),
        (torch.bfloat16, "highest", 8e-3, 35, 20),
        (torch.bfloat16, "highest", 8e-3, 16, 32),
        (torch.float16, "highest", 1e-3, 16, 32),
    ],
)
@pytest.mark.usefixtures("exact")
def test_emulated_convolution_on_tensor_cores(rng, dtype, precision, tolerance, channels, width):
    kernel_map = make_map(rng, 700, "submanifold")
    assert kernel_map.num_pairs / 27 > 128  # more than a block takes at once
    leaves = make_leaves(rng, kernel_map, channels, width, dtype)
    toward = normal(rng, dtype, kernel_map.num_outputs, width)
    doubles = [leaf.double() for leaf in leaves]
    want = results(by_definition, kernel_map, doubles, toward.double(), relu=False)
    torch.set_float32_matmul_precision(precision)
    with emulation():
        got = results(sparse_conv, kernel_map, leaves, toward, relu=False)
    assert all(tensor.dtype == dtype for tensor in got)
    errors = [
        float((ours.double() - theirs).detach().norm() / theirs.detach().norm())
        for ours, theirs in zip(got[:3], want, strict=False)
    ]
    # Not far less either: that would be another kernel.
    assert tolerance / 100 < min(errors)
    assert max(errors) < tolerance


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.usefixtures("exact")
def test_emulated_convolution_without_tensor_cores(rng, monkeypatch, dtype):
    """As before sm_80: whatever precision is asked for, products are those of float32."""
    monkeypatch.setattr(EmulatedKernels, "has_tf32", False)
    torch.set_float32_matmul_precision("high")
    kernel_map = make_map(rng, 100, "submanifold")
    leaves = make_leaves(rng, kernel_map, 16, 32, dtype)
    toward = normal(rng, dtype, kernel_map.num_outputs, 32)
    doubles = [leaf.double() for leaf in leaves]
    want = results(by_definition, kernel_map, doubles, toward.double(), relu=False)
    with emulation():
        got = results(sparse_conv, kernel_map, leaves, toward, relu=False)
    for ours, theirs in zip(got, want, strict=True):
        # The result's own rounding, and sums of up to 3000 terms in float32.
        assert_close(ours, theirs.to(dtype), rtol=2 * torch.finfo(dtype).eps, atol=1e-4)


@pytest.mark.parametrize("enough", [1, 5, 512])
def test_emulated_outputs_over_several_blocks_do_not_mix(rng, monkeypatch, enough):
    """Nor do the parts into which a convolution of few outputs is split."""
    monkeypatch.setattr(cuda_conv, "ENOUGH_BLOCKS", enough)
    kernel_map = make_map(rng, 900, "submanifold")
    assert kernel_map.num_outputs > 256
    leaves = make_leaves(rng, kernel_map, 2, 3, torch.float64)
    toward = normal(rng, torch.float64, kernel_map.num_outputs, 3)
    with emulation():
        got = results(sparse_conv, kernel_map, leaves, toward, relu=True)
    want = results(by_definition, kernel_map, leaves, toward, relu=True)
    for ours, theirs in zip(got, want, strict=True):
        assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (0, 2, 1), (1, 2, 0)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_emulated_convolution_takes_weights_in_any_order(rng, dtype, order):
    kernel_map = make_map(rng, 100, "down")
    features, weight, *_ = make_leaves(rng, kernel_map, 12, 40, dtype)
    laid = weight.permute(order).contiguous().permute([order.index(i) for i in range(3)])
    gaps = torch.stack([weight, weight], dim=-1)[..., 0]
    assert laid.stride() != gaps.stride()
    assert torch.equal(laid, weight)
    with emulation():
        one, *others = (sparse_conv(features, w, kernel_map) for w in (weight, laid, gaps))
    for other in others:
        assert torch.equal(one, other)
