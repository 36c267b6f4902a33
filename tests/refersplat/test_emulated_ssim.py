"""The CUDA kernels of structural similarity, run on the CPU thread by thread."""

import pytest
import torch
from torch.testing import assert_close

from refersplat.ops.ssim import ssim, ssim_reference
from tests.emulation import emulation
from tests.refersplat.test_ssim import images

pytestmark = pytest.mark.slow  # g++ compiles the kernels


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(
    ("shape", "padding"),
    [((3, 1, 1), "same"), ((1, 4, 37), "same"), ((3, 40, 33), "same"), ((2, 20, 33), "valid")],
)
def test_emulated_similarity_is_that_of_the_reference(rng, backwards, shape, padding):
    image, target = images(rng, shape, torch.float64)
    image.requires_grad_()
    with emulation(backwards):
        similarity = ssim(image, target, padding)
        (got,) = torch.autograd.grad(3 * similarity, image)
        alone = ssim(image.detach(), target, padding)
    want = ssim_reference(image, target, padding)
    assert torch.equal(alone, similarity)
    assert_close(similarity, want, rtol=0, atol=1e-13)
    (want,) = torch.autograd.grad(3 * want, image)
    assert want.abs().max() > 0
    assert_close(got, want, rtol=1e-9, atol=1e-12)


def test_emulated_similarity_in_float32(rng):
    image, target = images(rng, (3, 50, 20))
    image.requires_grad_()
    with emulation():
        similarity = ssim(image, target)
        (got,) = torch.autograd.grad(similarity, image)
    double = image.detach().double().requires_grad_()
    want = ssim_reference(double, target.double())
    (gradient,) = torch.autograd.grad(want, double)
    # Measured worst 2e-8 and 3e-7.
    assert_close(similarity.double(), want, rtol=0, atol=1e-7)
    assert (got - gradient).norm() < 2e-6 * gradient.norm()
