"""The CUDA kernels of rendering, run on the CPU thread by thread."""

import itertools

import pytest
import torch
from torch.testing import assert_close

from refer3d.native.cuda import kernels
from refersplat.ops import (
    blend_matrix,
    cuda_rasterize,
    project,
    rasterize,
    reference,
    spherical_harmonics,
)
from refersplat.ops.cuda_rasterize import TILE
from tests.emulation import emulation
from tests.refersplat.splats import HEIGHT, WIDTH, camera, gaussians, splats
from tests.refersplat.test_rasterize import NAMES, gradients, random_weights

pytestmark = pytest.mark.slow  # g++ compiles the kernels


@pytest.fixture(params=[False, True], ids=["forwards", "backwards"])
def emulated(request):
    """Threads take turns by their numbers, or against them: a race would show."""
    with emulation(backwards=request.param):
        yield


def projected(op_project, op_shade, inputs, weights, degree):
    """Everything that comes of Gaussians, and the gradients."""
    means, quats, scales, sh = (t.detach().requires_grad_() for t in inputs)
    view = camera(dtype=means.dtype)
    outputs = (*op_project(means, quats, scales, view), op_shade(means, sh, view.position, degree))
    loss = sum((w * t).sum() for w, t in zip(weights, (*outputs[:3], outputs[4]), strict=True))
    return *outputs, *torch.autograd.grad(loss, (means, quats, scales, sh))


@pytest.mark.parametrize(
    ("dtype", "degree"), [(torch.float32, 3), *((torch.float64, degree) for degree in range(4))]
)
def test_emulated_projection_is_that_of_the_cpu(rng, dtype, degree):
    means, quats, scales, _, sh = gaussians(rng, 300, dtype=dtype)
    weights = [torch.randn(300, *n, generator=rng, dtype=dtype) for n in [(2,), (3,), (), (3,)]]
    inputs = (means, quats, scales, sh)
    want = projected(project, spherical_harmonics, inputs, weights, degree)
    with emulation():
        got = projected(project, spherical_harmonics, inputs, weights, degree)
    for ours, theirs in zip(got, want, strict=True):
        # The same arithmetic but for float functions of float numbers; measured worst 2e-6.
        tolerance = (1e-5 if dtype == torch.float32 else 1e-13) * float(theirs.detach().abs().max())
        assert_close(ours, theirs, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("count", "channels"), [(1000, 3), (40, 5), (60, 40), (20, 0), (0, 3)])
def test_emulated_rasterizer_matches_reference(rng, emulated, count, channels):
    inputs = splats(rng, count, channels, dtype=torch.float64)
    weights = random_weights(rng, channels, torch.float64)
    got = (*rasterize(*inputs, HEIGHT, WIDTH), *gradients(rasterize, inputs, weights))
    # Of many, several batches lie in a tile.
    starts = torch.ops.refersplat.rasterize(*inputs, HEIGHT, WIDTH, True)[-1]
    assert count < 1000 or starts.diff().max() > 128
    want = reference.rasterize(*inputs, HEIGHT, WIDTH)
    want += gradients(reference.rasterize, inputs, weights)
    for name, ours, theirs in zip(["image", "left", *NAMES], got, want, strict=True):
        assert_close(ours, theirs, rtol=1e-9, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}")


def test_emulated_rasterizer_in_float32_is_that_in_float64(rng, emulated):
    inputs = splats(rng, 100, 3)
    weights = random_weights(rng, 3, torch.float32)
    got = (*rasterize(*inputs, HEIGHT, WIDTH), *gradients(rasterize, inputs, weights))
    doubles = [t.double() for t in inputs]
    want = reference.rasterize(*doubles, HEIGHT, WIDTH)
    want += gradients(reference.rasterize, doubles, [w.double() for w in weights])
    for ours, theirs in zip(got, want, strict=True):
        # Measured worst 3e-7.
        assert (ours.double() - theirs).norm() < 2e-6 * theirs.norm()


def test_emulated_rasterizer_sees_wide_opaque_and_broken_gaussians(rng):
    """Gaussians that cover all tiles, that finish every pixel, and that are not numbers."""
    inputs = [torch.cat([t, t[:6]]) for t in splats(rng, 30, 3, dtype=torch.float64)]
    inputs[1][30:32] = torch.tensor([1e-6, 0, 1e-6])
    inputs[2][30:32], inputs[3][30:32] = 2.0, 1.0
    for i, tensor in enumerate(inputs[:4]):
        tensor[32 + i] = float("nan")
    whole = [t[:32] for t in inputs]
    weights = random_weights(rng, 3, torch.float64)
    want = (*reference.rasterize(*whole, HEIGHT, WIDTH), *gradients(rasterize, whole, weights))
    with emulation():
        got = (*rasterize(*inputs, HEIGHT, WIDTH), *gradients(rasterize, inputs, weights))
    for ours, theirs in zip(got[:2], want[:2], strict=True):
        assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    for ours, theirs in zip(got[2:], want[2:], strict=True):
        assert_close(ours[:32], theirs, rtol=1e-9, atol=1e-9)
        assert (ours[32:] == 0).all()


def test_emulated_tile_lists_are_those_of_brute_force(rng, emulated):
    """Gaussians of a few tiles and of hundreds, whose warps go through them together."""
    width, height, count = 333, 250, 100
    *inputs, _ = splats(rng, count, 1, dtype=torch.float64)
    means2d, conics, depths, opacities = inputs
    means2d.mul_(torch.tensor([width / WIDTH, height / HEIGHT]))
    conics[::9] *= 1e-4
    conics[0] = torch.tensor([1e-6, 0, 1e-6])
    gpu = kernels("refersplat", means2d.device, means2d.dtype)
    lists = cuda_rasterize.tile_lists(gpu, *inputs, height, width)

    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    across = -(-width // TILE)
    tile_of_pixel = rows // TILE * across + columns // TILE
    found, sizes = [], []
    for i in range(count):
        dx, dy = means2d[i, 0] - columns, means2d[i, 1] - rows
        form = conics[i, 0] * dx**2 + 2 * conics[i, 1] * dx * dy + conics[i, 2] * dy**2
        is_met = (opacities[i] * torch.exp(-form / 2) >= 1 / 255) & (depths[i] > 0.2)
        found.append(set(tile_of_pixel[is_met].tolist()))
        sizes.append(len(found[-1]))
    assert max(sizes) == len(lists.starts) - 1 > 300
    assert sum(1 <= size <= 16 for size in sizes) > 20
    assert sum(size > 16 for size in sizes) > 5
    extra = 0
    for tile, (start, end) in enumerate(itertools.pairwise(lists.starts.tolist())):
        listed = lists.gaussians[start:end].tolist()
        assert (depths[listed].diff() >= 0).all()
        wanted = {i for i in range(count) if tile in found[i]}
        assert wanted <= set(listed)
        extra += len(listed) - len(wanted)
    # Ellipses may pass between the centres of a tile's pixels.
    assert extra <= 0.02 * len(lists.gaussians)


def test_emulated_operators_are_registered_correctly(rng):
    inputs = (*splats(rng, 9, 3), HEIGHT, WIDTH, True)
    with emulation():
        torch.library.opcheck(torch.ops.refersplat.rasterize.default, inputs)


def test_emulated_sums_have_a_fixed_order_where_it_is_asked_for(rng):
    """Threads that take turns the other way change nothing."""
    *inputs, values = splats(rng, 200, 35)
    weights = random_weights(rng, 35, torch.float32)

    def compute():
        blended = blend_matrix(*inputs, HEIGHT, WIDTH).blend(
            leaf := values.clone().requires_grad_()
        )
        (by_matrix,) = torch.autograd.grad(blended, leaf, weights[0])
        return *gradients(rasterize, (*inputs, values), weights), by_matrix

    with emulation():
        free = compute()
    torch.use_deterministic_algorithms(True)
    try:
        with emulation():
            one = compute()
        with emulation(backwards=True):
            other = compute()
    finally:
        torch.use_deterministic_algorithms(False)
    for first, second, loose in zip(one, other, free, strict=True):
        assert torch.equal(first, second)
        assert_close(first, loose, rtol=1e-4, atol=1e-4)
