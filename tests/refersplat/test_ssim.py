import pytest
import torch
from torch.testing import assert_close

from refersplat.ops.ssim import ssim, ssim_reference


def images(rng, shape, dtype=torch.float32, device="cpu"):
    return (torch.rand(*shape, generator=rng, dtype=dtype).to(device) for _ in range(2))


@pytest.mark.parametrize("shape", [(3, 1, 1), (1, 4, 37), (3, 40, 33), (3, 64, 5)])
def test_matches_reference(rng, device, shape):
    image, target = images(rng, shape, device=device)
    # Differences of blurred squares cancel in float32; measured worst 1.2e-6.
    assert_close(ssim(image, target), ssim_reference(image, target), rtol=0, atol=6e-6)


@pytest.mark.parametrize("shape", [(3, 1, 1), (1, 4, 37), (3, 40, 33)])
def test_gradient_matches_reference(rng, device, shape):
    image, target = images(rng, shape, torch.float64, device)
    image.requires_grad_()
    (got,) = torch.autograd.grad(3 * ssim(image, target), image)
    (want,) = torch.autograd.grad(3 * ssim_reference(image, target), image)
    assert want.abs().max() > 0
    assert_close(got, want, rtol=1e-9, atol=1e-12)


def test_gradcheck(rng, device):
    image, target = images(rng, (2, 7, 6), torch.float64, device)
    assert torch.autograd.gradcheck(lambda x: ssim(x, target), image.requires_grad_())


@pytest.mark.parametrize("with_gradient", [False, True])
def test_operator_is_registered_correctly(rng, device, with_gradient):
    image, target = images(rng, (3, 9, 8), device=device)
    torch.library.opcheck(torch.ops.refersplat.ssim.default, (image, target, with_gradient))


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
