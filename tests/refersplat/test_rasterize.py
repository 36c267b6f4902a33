import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from refersplat.ops import rasterize, reference
from tests.refersplat.splats import HEIGHT, WIDTH, splats

INPUTS = ["means2d", "conics", "opacities", "values"]


def gradients(op, inputs, height=HEIGHT, width=WIDTH):
    """Gradients of a random function of image and transmittance, by name."""
    means2d, conics, depths, opacities, values = inputs
    leaves = [t.clone().requires_grad_() for t in (means2d, conics, opacities, values)]
    outputs = op(leaves[0], leaves[1], depths, leaves[2], leaves[3], height, width)
    rng = torch.Generator().manual_seed(1)
    weights = [torch.randn(o.shape, generator=rng, dtype=torch.float64).to(o) for o in outputs]
    return dict(zip(INPUTS, torch.autograd.grad(outputs, leaves, weights), strict=True))


@pytest.mark.parametrize("count", [0, 1, 2, 300])
@pytest.mark.parametrize("channels", [0, 1, 2, 3, 4, 16, 32, 33])
def test_matches_reference(rng, device, count, channels):
    inputs = splats(rng, count, channels, device)
    image, left = rasterize(*inputs, HEIGHT, WIDTH)
    expected_image, expected_left = reference.rasterize(*inputs, HEIGHT, WIDTH)
    assert image.shape == (channels, HEIGHT, WIDTH)
    # float32 sums of up to 60 terms in the same order, exp by a polynomial; measured worst 1.2e-6.
    assert_close(image, expected_image, rtol=0, atol=6e-6)
    assert_close(left, expected_left, rtol=0, atol=6e-6)


@pytest.mark.parametrize("count", [0, 1, 300])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_gradients_match_reference(rng, device, count, channels):
    inputs = splats(rng, count, channels, device, torch.float64)
    got, want = gradients(rasterize, inputs), gradients(reference.rasterize, inputs)
    for name in INPUTS:
        assert count == 0 or want[name].abs().max() > 0, name
        # Sums in another order; measured worst 4e-12 where the gradients reach 1e3.
        assert_close(
            got[name], want[name], rtol=1e-10, atol=1e-10, msg=lambda m, name=name: f"{name}: {m}"
        )


@pytest.mark.parametrize("channels", [1, 3, 4, 16, 32])
def test_float_gradients_match_double(rng, device, channels):
    inputs = splats(rng, 200, channels, device)
    want = gradients(rasterize, [t.double() for t in inputs])
    for name, got in gradients(rasterize, inputs).items():
        # Measured worst 9e-7 of the norm.
        assert (got - want[name]).norm() < 5e-6 * want[name].norm(), name


def test_gradcheck(rng):
    means2d, conics, depths, opacities, values = splats(rng, 4, 2, dtype=torch.float64)
    # Smooth there: no alpha within a step of 1/255 or 0.99, no pixel that is finished.
    means2d = means2d / 20 + 2
    opacities = 0.3 + 0.1 * opacities
    conics = conics / conics.abs().amax(dim=1, keepdim=True) * 0.02
    leaves = [t.requires_grad_() for t in (means2d, conics, opacities, values)]
    torch.autograd.gradcheck(
        lambda m, c, o, v: rasterize(m, c, depths + 1, o, v, 5, 6), leaves, rtol=1e-5
    )


def test_operator_is_registered_correctly(rng, device):
    inputs = [t.requires_grad_() for t in splats(rng, 5, 2, device)]
    torch.library.opcheck(torch.ops.refersplat.rasterize.default, (*inputs, HEIGHT, WIDTH))


def test_one_gaussian_by_hand():
    image, left = rasterize(
        torch.tensor([[2.0, 1.0]]),
        torch.tensor([[0.5, 0.0, 2.0]]),
        torch.tensor([1.0]),
        torch.tensor([0.8]),
        torch.tensor([[3.0, -1.0]]),
        3,
        5,
    )
    # At the centre alpha is the opacity; one column on exp(-0.25), one row on exp(-1) of it.
    right, below = 0.8 * torch.exp(torch.tensor([-0.25, -1.0]))
    assert_close(left[1, 2], torch.tensor(0.2))
    assert_close(image[:, 1, 2], torch.tensor([2.4, -0.8]))
    assert_close(image[0, 1, 3], 3 * right)
    assert_close(left[2, 2], 1 - below)


def test_opaque_gaussian_hides_what_is_behind():
    stack = torch.tensor([[8.0, 8.0]]).expand(8, 2)
    conics = torch.tensor([[1e-6, 0.0, 1e-6]]).expand(8, 3)
    depths = torch.tensor([8.0, 1.0, 7.0, 2.0, 6.0, 3.0, 5.0, 4.0])
    image, left = rasterize(stack, conics, depths, torch.full((8,), 0.98), torch.eye(8), 16, 16)
    # 0.98, then 0.0196; a third would take the transmittance from 4e-4 to 8e-6.
    expected = torch.zeros(8)
    expected[1], expected[3] = 0.98, 0.0196
    assert_close(image[:, 8, 8], expected, rtol=0, atol=1e-6)
    assert_close(left[8, 8], torch.tensor(4e-4), rtol=1e-3, atol=0)


def test_order_of_rows_does_not_matter(rng, device):
    inputs = splats(rng, 100, 3, device)
    shuffled = torch.randperm(100, generator=rng).to(device)
    image, left = rasterize(*inputs, HEIGHT, WIDTH)
    other_image, other_left = rasterize(*(t[shuffled] for t in inputs), HEIGHT, WIDTH)
    assert torch.equal(image, other_image)
    assert torch.equal(left, other_left)


def test_equal_depths_come_in_the_order_of_their_rows():
    splat = (torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0, 1.0]]))
    twice = [t.expand(2, -1) for t in splat]
    image, _ = rasterize(*twice, torch.ones(2), torch.tensor([0.9, 0.9]), torch.eye(2), 1, 1)
    assert_close(image[:, 0, 0], torch.tensor([0.9, 0.09]))


def test_threads_do_not_change_a_bit(rng):
    inputs = splats(rng, 400, 3)
    results = []
    for threads in (1, 2, 5):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            results.append(
                [*rasterize(*inputs, HEIGHT, WIDTH), *gradients(rasterize, inputs).values()]
            )
        finally:
            torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (16, 16), (17, 15)])
def test_image_of_any_size(rng, device, height, width):
    inputs = splats(rng, 150, 2, device)
    image, left = rasterize(*inputs, height, width)
    expected_image, expected_left = reference.rasterize(*inputs, height, width)
    assert_close(image, expected_image, rtol=0, atol=6e-6)
    assert_close(left, expected_left, rtol=0, atol=6e-6)


@settings(max_examples=30)
@given(
    deviation=st.floats(0.3, 1e4),
    ratio=st.floats(0.003, 1),
    angle=st.floats(0, 3.2),
    x=st.floats(-200, 250),
    y=st.floats(-200, 250),
    opacity=st.floats(0, 1),
)
def test_no_pixel_of_any_ellipse_is_missed(deviation, ratio, angle, x, y, opacity):
    turn = torch.tensor(angle, dtype=torch.float64)
    axes = torch.stack(
        [torch.stack([turn.cos(), turn.sin()]), torch.stack([-turn.sin(), turn.cos()])]
    )
    variances = torch.tensor([deviation, max(0.55, deviation * ratio)], dtype=torch.float64) ** 2
    inverse = axes.T @ torch.diag(1 / variances) @ axes
    inputs = (
        torch.tensor([[x, y]], dtype=torch.float64),
        torch.stack([inverse[0, 0], inverse[0, 1], inverse[1, 1]])[None],
        torch.ones(1, dtype=torch.float64),
        torch.tensor([opacity], dtype=torch.float64),
        torch.ones(1, 1, dtype=torch.float64),
    )
    image, _ = rasterize(*inputs, 40, 50)
    expected, _ = reference.rasterize(*inputs, 40, 50)
    assert_close(image, expected, rtol=0, atol=1e-12)


def test_what_is_not_a_number_is_not_seen(rng):
    inputs = splats(rng, 20, 1)
    image, _ = rasterize(*inputs, HEIGHT, WIDTH)
    broken = [torch.cat([t, t[:4]]) for t in inputs]
    broken[0][20], broken[1][21], broken[2][22], broken[3][23] = (float("nan"),) * 4
    assert torch.equal(rasterize(*broken, HEIGHT, WIDTH)[0], image)


@pytest.mark.parametrize(
    ("index", "change", "message"),
    [
        (0, lambda t: t[:, :1], r"means2d must have shape \[\*, 2\], got \[3, 1\]"),
        (1, lambda t: t[:2], r"conics must have shape \[3, 3\], got \[2, 3\]"),
        (2, lambda t: t[:, None], r"depths must have shape \[3\], got \[3, 1\]"),
        (
            3,
            lambda t: t.double(),
            r"opacities must match means2d \(cpu, float32\), got cpu, float64",
        ),
        (4, lambda t: t[0], r"values must have shape \[3, \*\], got \[2\]"),
    ],
)
def test_refuses_what_does_not_fit(rng, index, change, message):
    inputs = list(splats(rng, 3, 2))
    inputs[index] = change(inputs[index])
    with pytest.raises(ValueError, match=message):
        rasterize(*inputs, HEIGHT, WIDTH)


def test_refuses_an_image_without_pixels(rng):
    with pytest.raises(ValueError, match="height and width must be at least 1, got 0 and 51"):
        rasterize(*splats(rng, 3, 2), 0, WIDTH)
