"""Blending: the compiled op against its meaning."""

import contextlib
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from refersplat.ops import blend_matrix, rasterize, reference
from tests.emulation import emulation
from tests.refersplat.splats import HEIGHT, WIDTH
from tests.refersplat.splats import splats as random_splats

NAMES = ["means2d", "conics", "opacities", "values"]


def splat(x, y, variance, depth, opacity, values):
    """Tensors of one round Gaussian."""
    conic = [1 / variance, 0, 1 / variance]
    return [torch.tensor([row]) for row in ([x, y], conic, depth, opacity, values)]


def together(*splats):
    return [torch.cat(tensors) for tensors in zip(*splats, strict=True)]


def gradients(op, splats, weights, size=(HEIGHT, WIDTH)):
    """Gradients of means2d, conics, opacities and values."""
    means2d, conics, depths, opacities, values = splats
    inputs = [t.detach().requires_grad_() for t in (means2d, conics, opacities, values)]
    outputs = op(inputs[0], inputs[1], depths, inputs[2], inputs[3], *size)
    return torch.autograd.grad(outputs, inputs, weights)


def random_weights(rng, channels, dtype, device="cpu", size=(HEIGHT, WIDTH)):
    return [
        torch.randn(*shape, *size, generator=rng, dtype=dtype).to(device)
        for shape in [(channels,), ()]
    ]


def with_threads(number, compute):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(number)
        return compute()
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("count", "channels"),
    [(0, 3), (1, 1), (2, 0), (50, 0), (50, 16), (2_000, 1), (2_000, 3), (2_000, 5)],
)
def test_matches_reference(rng, device, count, channels):
    splats = random_splats(rng, count, channels, device=device)
    image, left = rasterize(*splats, HEIGHT, WIDTH)
    expected_image, expected_left = reference.rasterize(*splats, HEIGHT, WIDTH)
    # float32, up to some hundred terms in the same order; measured worst 3e-6.
    assert_close(image, expected_image, rtol=1e-5, atol=2e-5)
    assert_close(left, expected_left, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("channels", [1, 3, 7])
def test_gradients_match_reference(rng, device, channels):
    splats = random_splats(rng, 300, channels, device, torch.float64)
    weights = random_weights(rng, channels, torch.float64, device)
    got, want = (gradients(op, splats, weights) for op in (rasterize, reference.rasterize))
    for name, ours, theirs in zip(NAMES, got, want, strict=True):
        assert theirs.abs().max() > 0, name
        assert_close(ours, theirs, rtol=1e-9, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("channels", [1, 3, 4, 6, 16, 32])
def test_gradients_in_float32_are_those_in_float64(rng, channels):
    splats = random_splats(rng, 200, channels)
    weights = random_weights(rng, channels, torch.float32)
    got = gradients(rasterize, splats, weights)
    want = gradients(rasterize, [t.double() for t in splats], [w.double() for w in weights])
    for name, ours, theirs in zip(NAMES, got, want, strict=True):
        # Sums over up to 1 665 pixels; measured worst 3e-6.
        assert (ours.double() - theirs).norm() < 2e-5 * theirs.norm(), name


def test_passes_gradcheck():
    means2d = torch.tensor([[1.2, 1.1], [2.1, 0.8], [0.3, 2.2]], dtype=torch.float64)
    conics = torch.tensor([[0.2, 0.05, 0.3]] * 3, dtype=torch.float64)  # no pixel below 1/255
    depths = torch.tensor([3.0, 1.0, 2.0], dtype=torch.float64)
    opacities = torch.tensor([0.5, 0.7, 0.6], dtype=torch.float64)
    values = torch.tensor([[1.0, -2.0], [0.5, 3.0], [-1.0, 1.0]], dtype=torch.float64)
    inputs = [t.requires_grad_() for t in (means2d, conics, opacities, values)]
    assert torch.autograd.gradcheck(lambda m, c, o, v: rasterize(m, c, depths, o, v, 4, 3), inputs)


def test_one_gaussian_between_others():
    image, left = rasterize(*splat(8.0, 6.0, 4.0, 1.0, 0.5, [1.0, -2.0]), 20, 20)
    assert_close(image[:, 6, 8], torch.tensor([0.5, -1.0]))
    # Two pixels away: one standard deviation.
    beside = 0.5 * math.exp(-0.5)
    assert_close(image[0, 6, [6, 10]], torch.full((2,), beside))
    assert_close(image[0, [4, 8], 8], torch.full((2,), beside))
    assert_close(left, 1 - image[0])
    # 0.5 exp(-q / 2) = 1/255 at a distance of 6.23.
    assert image[0, 6, 14] > 0
    assert image[0, 6, 15] == 0


def test_nearer_comes_first_and_equal_depths_in_order():
    red, blue = [1.0, 0.0], [0.0, 1.0]
    near, far = splat(2.0, 2.0, 1.0, 1.0, 0.5, red), splat(2.0, 2.0, 1.0, 2.0, 0.5, blue)
    for splats in (together(near, far), together(far, near)):
        image, left = rasterize(*splats, 5, 5)
        assert_close(image[:, 2, 2], torch.tensor([0.5, 0.25]))
        assert_close(left[2, 2], torch.tensor(0.25))
    same = splat(2.0, 2.0, 1.0, 1.0, 0.5, blue)
    image, _ = rasterize(*together(near, same), 5, 5)
    assert_close(image[:, 2, 2], torch.tensor([0.5, 0.25]))


def test_an_opaque_gaussian_hides_what_is_behind():
    # Alpha is at most 0.99: two of them leave 1e-4, and the third would take it below.
    wide = 1e6
    front = splat(8.0, 8.0, wide, 1.0, 1.0, [1.0])
    middle, back = splat(8.0, 8.0, wide, 2.0, 0.9, [0.0]), splat(8.0, 8.0, wide, 3.0, 1.0, [1e6])
    image, left = rasterize(*together(front, middle, back), 16, 16)
    assert_close(image[0], torch.full((16, 16), 0.99))
    assert_close(left, torch.full((16, 16), 1e-3))


def test_order_of_the_rows_does_not_matter(rng):
    splats = random_splats(rng, 500, 3)
    order = torch.randperm(500, generator=rng)
    for got, want in zip(
        rasterize(*[t[order] for t in splats], HEIGHT, WIDTH),
        rasterize(*splats, HEIGHT, WIDTH),
        strict=True,
    ):
        assert torch.equal(got, want)


def test_channels_do_not_know_of_each_other(rng):
    *splats, values = random_splats(rng, 100, 33)
    whole, _ = rasterize(*splats, values, HEIGHT, WIDTH)
    matrix = blend_matrix(*splats, HEIGHT, WIDTH)
    for channels in range(1, 34):
        few = values[:, :channels]
        # The same operations; a compiler may fuse some of them.
        assert_close(
            rasterize(*splats, few, HEIGHT, WIDTH)[0], whole[:channels], rtol=1e-5, atol=1e-6
        )
        assert_close(matrix.blend(few), whole[:channels], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("depth", [0.2, 0.0, -1.0])
def test_nothing_is_seen_behind_the_near_plane(depth):
    splats = splat(2.0, 2.0, 1.0, depth, 0.5, [1.0])
    image, left = rasterize(*splats, 5, 5)
    assert (image == 0).all()
    assert (left == 1).all()
    assert all(
        (grad == 0).all() for grad in gradients(rasterize, splats, [image + 1, left], (5, 5))
    )


def test_one_gaussian_wider_than_the_image():
    splats = splat(-400.0, 300.0, 1e8, 1.0, 0.5, [2.0])
    image, _ = rasterize(*splats, 70, 90)
    assert_close(image, torch.ones(1, 70, 90), rtol=0, atol=2e-3)
    expected, _ = reference.rasterize(*splats, 70, 90)
    assert_close(image, expected)


def test_gaussians_on_the_edge_of_sight_match_reference():
    """Alpha around 1/255, on both sides of the tiles' seams."""
    opacities = torch.linspace(0.5 / 255, 3 / 255, 40, dtype=torch.float64)
    count = len(opacities)
    rng = torch.Generator().manual_seed(5)
    means2d, conics, depths, _, values = random_splats(rng, count, 1, dtype=torch.float64)
    means2d = torch.stack([means2d[:, 0].round() + 0.5, means2d[:, 1].round()], dim=1)
    splats = (means2d, conics, depths, opacities, values)
    for got, want in zip(
        rasterize(*splats, HEIGHT, WIDTH), reference.rasterize(*splats, HEIGHT, WIDTH), strict=True
    ):
        assert_close(got, want, rtol=1e-12, atol=1e-14)


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


@pytest.mark.parametrize("conic", [(-1e-3, -1.2e-3, -1e-3), (1e-3, 1.2e-3, 1e-3), (0.0, 0.0, 0.0)])
@pytest.mark.parametrize("emulated", [False, True])
def test_what_is_no_ellipse_is_not_seen(device, conic, emulated):
    """As the form of a needle becomes when its determinant is rounded."""
    splat = (
        torch.full((1, 2), 32.0, device=device),
        torch.tensor([conic], device=device),
        torch.ones(1, device=device),
        torch.full((1,), 0.5, device=device),
        torch.ones(1, 1, device=device),
    )
    with emulation() if emulated else contextlib.nullcontext():
        for draw in (rasterize, reference.rasterize):
            image, transmittance = draw(*splat, 64, 64)
            assert (image == 0).all()
            assert (transmittance == 1).all()


def test_what_is_not_a_number_is_not_seen(rng):
    inputs = random_splats(rng, 20, 1)
    image, _ = rasterize(*inputs, HEIGHT, WIDTH)
    broken = [torch.cat([t, t[:4]]) for t in inputs]
    broken[0][20], broken[1][21], broken[2][22], broken[3][23] = (float("nan"),) * 4
    assert torch.equal(rasterize(*broken, HEIGHT, WIDTH)[0], image)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    count=st.integers(0, 40),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    channels=st.integers(1, 5),
)
def test_any_size_matches_reference(seed, count, height, width, channels):
    rng = torch.Generator().manual_seed(seed)
    size = (height, width)
    splats = random_splats(rng, count, channels, dtype=torch.float64, size=size)
    image, left = rasterize(*splats, *size)
    expected_image, expected_left = reference.rasterize(*splats, *size)
    assert_close(image, expected_image, rtol=1e-9, atol=1e-12)
    assert_close(left, expected_left, rtol=1e-9, atol=1e-12)
    matrix = blend_matrix(*splats[:4], *size)
    assert_close(matrix.blend(splats[4]), expected_image, rtol=1e-9, atol=1e-12)
    weights = random_weights(rng, channels, torch.float64, size=size)
    got, want = (gradients(op, splats, weights, size) for op in (rasterize, reference.rasterize))
    for ours, theirs in zip(got, want, strict=True):
        assert_close(ours, theirs, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("channels", [3, 6])
def test_results_do_not_depend_on_the_number_of_threads(rng, channels):
    splats = random_splats(rng, 3_000, channels, size=(150, 170))
    weights = random_weights(rng, channels, torch.float32, size=(150, 170))

    def compute():
        matrix = blend_matrix(*splats[:4], 150, 170)
        values = splats[4].requires_grad_()
        blended = matrix.blend(values)
        return (
            *rasterize(*splats, 150, 170),
            *gradients(rasterize, splats, weights, (150, 170)),
            blended,
            *torch.autograd.grad(blended, values, weights[0]),
        )

    alone = with_threads(1, compute)
    for number in (2, 3, 7):
        for one, many in zip(alone, with_threads(number, compute), strict=True):
            assert torch.equal(one, many)


def test_operators_are_registered_correctly(rng, device):
    ops = torch.ops.refersplat
    splats = random_splats(rng, 9, 2, device=device)
    for keeps_lists in (True, False):
        arguments = (*splats, HEIGHT, WIDTH, keeps_lists)
        torch.library.opcheck(ops.rasterize.default, arguments)
        results = ops.rasterize(*arguments)
        grads = [torch.ones_like(result) for result in results[:2]]
        torch.library.opcheck(ops.rasterize_backward.default, (*splats, *results, *grads))


@pytest.mark.parametrize("emulated", [False, True])
def test_gradients_need_no_lists(rng, emulated):
    splats = random_splats(rng, 40, 3)
    ops, grads = torch.ops.refersplat, random_weights(rng, 3, torch.float32)
    with emulation() if emulated else contextlib.nullcontext():
        kept, made = (
            ops.rasterize_backward(*splats, *ops.rasterize(*splats, HEIGHT, WIDTH, keeps), *grads)
            for keeps in (True, False)
        )
    assert all(map(torch.equal, kept, made))


def test_compiles_into_a_graph(rng):
    splats = random_splats(rng, 20, 3)
    weights = random_weights(rng, 3, torch.float32)
    compiled = torch.compile(rasterize, backend="aot_eager", fullgraph=True)
    for got, want in zip(
        (*compiled(*splats, HEIGHT, WIDTH), *gradients(compiled, splats, weights)),
        (*rasterize(*splats, HEIGHT, WIDTH), *gradients(rasterize, splats, weights)),
        strict=True,
    ):
        assert torch.equal(got, want)


def test_names_what_does_not_fit(rng):
    means2d, conics, depths, opacities, values = random_splats(rng, 3, 2)
    with pytest.raises(ValueError, match=r"conics must have shape \[3, 3\], got \[3, 2\]"):
        rasterize(means2d, conics[:, :2], depths, opacities, values, 4, 4)
    with pytest.raises(ValueError, match=r"values must have shape \[3, \*\], got \[2, 2\]"):
        rasterize(means2d, conics, depths, opacities, values[:2], 4, 4)
    with pytest.raises(ValueError, match=r"depths must match means2d \(cpu, float32\)"):
        rasterize(means2d, conics, depths.double(), opacities, values, 4, 4)
    with pytest.raises(ValueError, match="means2d must be float32 or float64, got float16"):
        blend_matrix(*(t.half() for t in (means2d, conics, depths, opacities)), 4, 4)
    with pytest.raises(ValueError, match=r"height and width must be at least 1 .* got 0 and 4"):
        rasterize(means2d, conics, depths, opacities, values, 0, 4)
    # Its tiles could not be counted by 32 bits, and were read beyond their end.
    with pytest.raises(ValueError, match="at most 65536, got 4 and 2147483647"):
        rasterize(means2d, conics, depths, opacities, values, 4, 2**31 - 1)
    with pytest.raises(ValueError, match=r"opacities must have shape \[3\], got \[3, 1\]"):
        blend_matrix(means2d, conics, depths, opacities[:, None], 4, 4)
