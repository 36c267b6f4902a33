"""How far an image is from the photo: L1, PSNR, and structural similarity (SSIM)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SSIM_WINDOW = 11
"""Side of the Gaussian window in pixels; its standard deviation is 1.5 (Wang et al. 2004)."""
SSIM_SIGMA = 1.5
SSIM_C1 = 0.01**2
SSIM_C2 = 0.03**2


def l1(image: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of two images of one shape."""
    return (image - target).abs().mean()


def psnr(image: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of images in 0..1."""
    return -10 * (image - target).square().mean().clamp(min=1e-12).log10()


def ssim(
    image: Tensor,  # [C, H, W]
    target: Tensor,  # [C, H, W]
) -> Tensor:  # scalar
    """Mean structural similarity of images in 0..1; outside the image lies zero, as in 3DGS.

    Differentiable in ``image``; ``target`` is a constant.
    """
    return _Ssim.apply(image, target.detach())


def photo_loss(image: Tensor, target: Tensor, lambda_dssim: float) -> Tensor:
    """``(1 - lambda) L1 + lambda (1 - SSIM)``, the loss of Kerbl et al. (2023)."""
    return (1 - lambda_dssim) * l1(image, target) + lambda_dssim * (1 - ssim(image, target))


@lru_cache(maxsize=8)
def _window(dtype: torch.dtype, device: torch.device) -> Tensor:  # [SSIM_WINDOW]
    offsets = torch.arange(SSIM_WINDOW, dtype=dtype, device=device) - SSIM_WINDOW // 2
    weights = torch.exp(-offsets.square() / (2 * SSIM_SIGMA**2))
    return weights / weights.sum()


def _blur(maps: Tensor) -> Tensor:  # [C, H, W] -> [C, H, W]
    """Gaussian window in each channel. Symmetric and zero outside: its own transpose."""
    count, half = len(maps), SSIM_WINDOW // 2
    window = _window(maps.dtype, maps.device)
    across = window.expand(count, 1, 1, SSIM_WINDOW)
    down = window[:, None].expand(count, 1, SSIM_WINDOW, 1)
    blurred = F.conv2d(maps[None], across, padding=(0, half), groups=count)
    return F.conv2d(blurred, down, padding=(half, 0), groups=count)[0]


class _Ssim(torch.autograd.Function):
    """The gradient by hand: three blurs, where autograd would keep and redo five."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, target: Tensor) -> Tensor:
        moments = torch.cat([image, target, image * image, target * target, image * target])
        mean_x, mean_y, square_x, square_y, product = _blur(moments).chunk(5)
        luminance_top = 2 * mean_x * mean_y + SSIM_C1
        luminance_bottom = mean_x.square() + mean_y.square() + SSIM_C1
        contrast_top = 2 * (product - mean_x * mean_y) + SSIM_C2
        contrast_bottom = square_x - mean_x.square() + square_y - mean_y.square() + SSIM_C2
        bottom = luminance_bottom * contrast_bottom
        similarity = luminance_top * contrast_top / bottom
        if ctx.needs_input_grad[0]:
            by_product = 2 * luminance_top / bottom
            by_square = -similarity / contrast_bottom
            by_mean = (
                2 * mean_y * contrast_top / bottom
                - 2 * mean_x * similarity / luminance_bottom
                - mean_y * by_product
                - 2 * mean_x * by_square
            )
            ctx.save_for_backward(image, target, by_mean, by_square, by_product)
        return similarity.mean()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        image, target, *derivatives = ctx.saved_tensors
        by_mean, by_square, by_product = _blur(torch.cat(derivatives)).chunk(3)
        return grad / image.numel() * (by_mean + 2 * image * by_square + target * by_product), None
