import pytest
import torch
from torch.testing import assert_close

from refersplat.ops import blend_matrix, rasterize, reference
from tests.refersplat.splats import HEIGHT, WIDTH, splats


@pytest.mark.parametrize("count", [0, 1, 300])
@pytest.mark.parametrize("channels", [0, 1, 3, 5, 16])
def test_renders_as_rasterize_does(rng, device, count, channels):
    *geometry, values = splats(rng, count, channels, device)
    matrix = blend_matrix(*geometry, HEIGHT, WIDTH)
    image, left = rasterize(*geometry, values, HEIGHT, WIDTH)
    # The same weights, summed in the same order, with or without fused products; measured 4e-7.
    assert_close(matrix.blend(values), image, rtol=0, atol=2e-6)
    assert torch.equal(matrix.transmittance, left)


def test_matches_reference(rng, device):
    *geometry, _ = splats(rng, 200, 1, device, torch.float64)
    got = list(vars(blend_matrix(*geometry, HEIGHT, WIDTH)).values())[3:]
    want = reference.blend_matrix(*geometry, HEIGHT, WIDTH)
    for one, other in zip(got[:5], want[:5], strict=True):
        assert torch.equal(one, other)
    for one, other in zip(got[5:], want[5:], strict=True):
        assert_close(one, other, rtol=0, atol=1e-13)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_gradients_are_the_transposed_product(rng, device, channels):
    *geometry, values = splats(rng, 200, channels, device, torch.float64)
    leaf = values.requires_grad_()
    image = blend_matrix(*geometry, HEIGHT, WIDTH).blend(leaf)
    weights = torch.randn(image.shape, generator=rng, dtype=torch.float64).to(device)
    (got,) = torch.autograd.grad(image, leaf, weights)
    expected, _ = reference.rasterize(*geometry, leaf, HEIGHT, WIDTH)
    (want,) = torch.autograd.grad(expected, leaf, weights)
    assert want.abs().max() > 0
    assert_close(got, want, rtol=1e-11, atol=1e-11)
    # On a GPU tiles add to a Gaussian in any order.
    collected = blend_matrix(*geometry, HEIGHT, WIDTH).collect(weights)
    assert_close(collected, got, rtol=1e-12, atol=1e-12)


def test_gradcheck(rng):
    *geometry, values = splats(rng, 6, 2, dtype=torch.float64)
    matrix = blend_matrix(*geometry, 9, 8)
    torch.autograd.gradcheck(matrix.blend, [values.requires_grad_()])


def test_operator_is_registered_correctly(rng, device):
    *geometry, values = splats(rng, 6, 2, device)
    m = blend_matrix(*geometry, HEIGHT, WIDTH)
    arrays = (m.tile_groups, m.tile_weights, m.gaussians, m.group_rows, m.rows, m.weights)
    torch.library.opcheck(torch.ops.refersplat.blend.default, (values, *arrays, HEIGHT, WIDTH))


def test_reference_products_agree(rng, monkeypatch):
    *geometry, values = splats(rng, 50, 3)
    leaf = values.requires_grad_()
    matrix = blend_matrix(*geometry, HEIGHT, WIDTH)
    weights = torch.randn(3, HEIGHT, WIDTH, generator=rng)
    results = []
    for _ in range(2):
        image = matrix.blend(leaf)
        results.append((image.detach(), *torch.autograd.grad(image, leaf, weights)))
        monkeypatch.setattr("refer3d.native.operators.cpu_ops", lambda *_: None)
    for compiled, plain in zip(*results, strict=True):
        assert_close(compiled, plain, rtol=1e-5, atol=1e-5)


def test_both_products_are_linear(rng):
    """So each is the other's gradient, of any order."""
    *geometry, values = (tensor.double() for tensor in splats(rng, 20, 2))
    matrix = blend_matrix(*geometry, HEIGHT, WIDTH)
    image = torch.randn(2, HEIGHT, WIDTH, generator=rng, dtype=torch.float64)
    leaf, seen = values.requires_grad_(), image.requires_grad_()
    (grad,) = torch.autograd.grad(matrix.collect(seen), seen, leaf, create_graph=True)
    assert_close(grad, matrix.blend(leaf), rtol=1e-12, atol=1e-12)
    (back,) = torch.autograd.grad(grad, leaf, image.detach())
    assert_close(back, matrix.collect(image), rtol=1e-12, atol=1e-12)


def test_says_what_it_holds(rng):
    *geometry, _ = splats(rng, 50, 1)
    matrix = blend_matrix(*geometry, HEIGHT, WIDTH)
    order, weights, _ = reference.blend_weights(
        *geometry, torch.cartesian_prod(torch.arange(WIDTH), torch.arange(HEIGHT)).float()
    )
    assert len(order) == int((geometry[2] > reference.NEAR).sum())
    assert matrix.entries == int((weights > 0).sum())
    own = [t for t in vars(matrix).values() if torch.is_tensor(t)]
    before = matrix.nbytes
    assert before == sum(t.nbytes for t in (*own, *matrix.seen)) == matrix.nbytes


def test_knows_which_gaussians_it_shows(rng):
    *geometry, _ = splats(rng, 50, 1)
    matrix = blend_matrix(*geometry, HEIGHT, WIDTH)
    seen, others = matrix.seen
    shares = matrix.collect(torch.ones(1, HEIGHT, WIDTH))[:, 0]
    assert torch.equal(seen, (shares > 0).nonzero()[:, 0])
    assert torch.equal(others, (shares == 0).nonzero()[:, 0])
    assert 0 < len(seen) < 50


def test_refuses_values_that_do_not_fit(rng):
    *geometry, _ = splats(rng, 5, 1)
    matrix = blend_matrix(*geometry, HEIGHT, WIDTH)
    with pytest.raises(ValueError, match=r"values must have shape \[5, \*\], got \[4, 1\]"):
        matrix.blend(torch.ones(4, 1))
    with pytest.raises(ValueError, match="values must match weights"):
        matrix.blend(torch.ones(5, 1, dtype=torch.float64))


def test_keeps_its_precision_under_autocast(rng):
    *inputs, values = splats(rng, 40, 3)
    coarse = values.bfloat16()
    matrix = blend_matrix(*inputs, HEIGHT, WIDTH)
    want = matrix.blend(coarse.float())
    with torch.autocast("cpu", torch.bfloat16):
        for image in (matrix.blend(coarse), rasterize(*inputs, coarse, HEIGHT, WIDTH)[0]):
            assert_close(image, want, rtol=1e-5, atol=1e-5)
        assert matrix.collect(want.bfloat16()).dtype == torch.float32
