import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from refersplat.ops.ssim import ssim, ssim_reference


def images(rng, shape, dtype=torch.float32, device="cpu"):
    return (torch.rand(*shape, generator=rng, dtype=dtype).to(device) for _ in range(2))


SIZES = [
    *((shape, "same") for shape in [(3, 1, 1), (1, 4, 37), (3, 40, 33), (3, 64, 5)]),
    *((shape, "valid") for shape in [(2, 11, 11), (1, 12, 37), (3, 40, 33)]),
]


@pytest.mark.parametrize(("shape", "padding"), SIZES)
def test_matches_reference(rng, device, shape, padding):
    image, target = images(rng, shape, device=device)
    got, want = ssim(image, target, padding), ssim_reference(image, target, padding)
    # Differences of blurred squares cancel in float32; measured worst 1.2e-6.
    assert_close(got, want, rtol=0, atol=6e-6)


@pytest.mark.parametrize(("shape", "padding"), SIZES)
def test_gradient_matches_reference(rng, device, shape, padding):
    image, target = images(rng, shape, torch.float64, device)
    image.requires_grad_()
    (got,) = torch.autograd.grad(3 * ssim(image, target, padding), image)
    (want,) = torch.autograd.grad(3 * ssim_reference(image, target, padding), image)
    assert want.abs().max() > 0
    assert_close(got, want, rtol=1e-9, atol=1e-12)


def test_gradcheck(rng, device):
    image, target = images(rng, (2, 7, 6), torch.float64, device)
    assert torch.autograd.gradcheck(lambda x: ssim(x, target), image.requires_grad_())


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_equals_windows(rng, device, padding):
    """The definition: weighted moments of every pixel's window of 11 x 11, zeros outside."""
    image, target = images(rng, (1, 12, 13), torch.float64, device)
    offsets = torch.arange(11.0, dtype=torch.float64) - 5
    weights = torch.exp(-(offsets[:, None] ** 2 + offsets**2) / 4.5).to(image)
    weights, scores = weights / weights.sum(), []
    half = 5 if padding == "same" else 0
    x, y = (F.pad(z[0], [half] * 4) for z in (image, target))
    for row in range(x.shape[0] - 10):
        for column in range(x.shape[1] - 10):
            a, b = (z[row : row + 11, column : column + 11] for z in (x, y))
            mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
            variances = (weights * ((a - mean_a) ** 2 + (b - mean_b) ** 2)).sum()
            covariance = (weights * (a - mean_a) * (b - mean_b)).sum()
            luminance = (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
            scores.append(luminance * (2 * covariance + 9e-4) / (variances + 9e-4))
    for op in (ssim, ssim_reference):
        assert_close(op(image, target, padding), torch.stack(scores).mean(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("is_valid", [False, True])
@pytest.mark.parametrize("with_gradient", [False, True])
def test_operator_is_registered_correctly(rng, device, with_gradient, is_valid):
    image, target = images(rng, (3, 12, 11), device=device)
    arguments = (image, target, with_gradient, is_valid)
    torch.library.opcheck(torch.ops.refersplat.ssim.default, arguments)


def test_image_against_itself_is_one_and_against_noise_is_not(rng, device):
    image, noise = images(rng, (3, 30, 30), device=device)
    assert_close(ssim(image, image), torch.ones((), device=device))
    assert ssim(image, noise) < 0.2


def test_does_not_depend_on_the_number_of_threads(rng):
    image, target = images(rng, (3, 70, 50))
    threads = torch.get_num_threads()
    try:
        values = []
        for count in (1, 2):
            torch.set_num_threads(count)
            values.append(ssim(image, target))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*values)


def test_names_what_does_not_match(rng):
    image, target = images(rng, (3, 8, 8))
    with pytest.raises(ValueError, match=r"target must have shape \[3, 8, 8\], got \[3, 8, 7\]"):
        ssim(image, target[..., :7])
    with pytest.raises(ValueError, match="target must match image"):
        ssim(image, target.double())
    with pytest.raises(ValueError, match="image must be float32 or float64, got bfloat16"):
        ssim(image.bfloat16(), target.bfloat16())
    with pytest.raises(ValueError, match="image must have pixels"):
        ssim(image[:, :0], target[:, :0])
    with pytest.raises(ValueError, match="image must have at least 11 x 11 pixels"):
        ssim(image, target, "valid")
    with pytest.raises(ValueError, match="padding must be 'same' or 'valid', got 'full'"):
        ssim(image, target, "full")
