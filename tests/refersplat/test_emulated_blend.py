"""The CUDA kernels of frozen views, run on the CPU thread by thread."""

import pytest
import torch
from torch.testing import assert_close

from refersplat.ops import blend_matrix, reference
from tests.emulation import emulation
from tests.refersplat.splats import HEIGHT, WIDTH, splats

pytestmark = pytest.mark.slow  # g++ compiles the kernels

FIELDS = ["tile_groups", "tile_weights", "gaussians", "group_rows", "rows", "weights"]


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("count", [0, 1, 800])
def test_emulated_matrix_is_that_of_the_cpu(rng, backwards, count):
    inputs = splats(rng, count, 0, dtype=torch.float64)[:4]
    inputs[3][: count // 20] = 1.0  # some finish pixels
    want = blend_matrix(*inputs, HEIGHT, WIDTH)
    with emulation(backwards):
        got = blend_matrix(*inputs, HEIGHT, WIDTH)
    for name in [*FIELDS, "transmittance"]:
        assert_close(getattr(got, name), getattr(want, name), rtol=1e-12, atol=1e-14)
    assert count < 800 or got.tile_groups.diff().max() > 128  # several batches in a tile


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(("count", "channels"), [(800, 3), (40, 18), (0, 3), (20, 0)])
def test_emulated_products_match_the_rasterizer(rng, backwards, count, channels):
    *inputs, values = splats(rng, count, channels, dtype=torch.float64)
    want, _ = reference.rasterize(*inputs, values.requires_grad_(), HEIGHT, WIDTH)
    weights = torch.randn(want.shape, generator=rng, dtype=torch.float64)
    (want_grad,) = torch.autograd.grad(want, values, weights)
    with emulation(backwards):
        matrix = blend_matrix(*inputs, HEIGHT, WIDTH)
        image = matrix.blend(values)
        (grad,) = torch.autograd.grad(image, values, weights)
    assert_close(image, want, rtol=1e-9, atol=1e-12)
    assert_close(grad, want_grad, rtol=1e-9, atol=1e-12)


def test_emulated_products_in_float32(rng):
    *inputs, values = splats(rng, 100, 1)
    with emulation():
        image = blend_matrix(*inputs, HEIGHT, WIDTH).blend(values)
    want, _ = reference.rasterize(*inputs, values, HEIGHT, WIDTH)
    # Sums of some dozen terms; measured worst 5e-7.
    assert_close(image, want, rtol=1e-5, atol=5e-6)
