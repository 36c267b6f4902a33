import torch
from torch.testing import assert_close

from fused_ssim import fused_ssim
from refersplat.ops.ssim import ssim_reference
from tests.errors import raises


def images(rng, device, batch=2):
    shape = (batch, 3, 20, 17)
    return (torch.rand(shape, generator=rng, dtype=torch.float64).to(device) for _ in range(2))


def test_a_batch_has_the_mean_of_its_images(rng, device):
    image, truth = images(rng, device)
    for padding in ("same", "valid"):
        pairs = zip(image, truth, strict=True)
        wanted = torch.stack([ssim_reference(*pair, padding) for pair in pairs]).mean()
        assert_close(fused_ssim(image, truth, padding), wanted, rtol=1e-9, atol=0)


def test_as_gsplats_trainer_calls_it(rng, device):
    """Images [B, H, W, C] permuted, 1 - fused_ssim(…, padding="valid") as the loss."""
    colors, pixels = (x.permute(0, 2, 3, 1).contiguous() for x in images(rng, device, 1))
    colors.requires_grad_()
    loss = 1 - fused_ssim(colors.permute(0, 3, 1, 2), pixels.permute(0, 3, 1, 2), padding="valid")
    (got,) = torch.autograd.grad(loss, colors)
    chw = [x[0].permute(2, 0, 1) for x in (colors, pixels)]
    (wanted,) = torch.autograd.grad(1 - ssim_reference(*chw, "valid"), colors)
    assert wanted.abs().max() > 0
    assert_close(got, wanted, rtol=1e-9, atol=1e-12)


def test_as_inrias_trainer_calls_it(rng, device):
    image, truth = (x[0] for x in images(rng, device, 1))
    image.requires_grad_()
    fused_ssim(image.unsqueeze(0), truth.unsqueeze(0)).backward()
    assert image.grad.abs().max() > 0


def test_without_training_there_is_no_gradient(rng, device):
    image, truth = images(rng, device)
    value = fused_ssim(image.requires_grad_(), truth, train=False)
    assert not value.requires_grad
    assert_close(value, fused_ssim(image, truth).detach())


def test_takes_16_bits(rng, device):
    image, truth = (x.half() for x in images(rng, device))
    value = fused_ssim(image.requires_grad_(), truth)
    value.backward()
    assert value.dtype == image.grad.dtype == torch.float16
    assert_close(value.detach(), fused_ssim(image.detach().float(), truth.float()).half())


def test_errors_name_the_argument(rng):
    image, truth = images(rng, "cpu")
    with raises(ValueError, "img1", "[*, *, *, *]"):
        fused_ssim(image[0], truth[0])
    with raises(ValueError, "img2", "[2, 3, 20, 17]"):
        fused_ssim(image, truth[:1])
    with raises(ValueError, "padding", "full"):
        fused_ssim(image, truth, padding="full")
