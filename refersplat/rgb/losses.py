"""Losses between a rendering and its photo."""

from __future__ import annotations

import torch
from torch import Tensor

from refersplat.ops.ssim import ssim

__all__ = ["l1", "photo_loss", "psnr", "ssim"]


def l1(image: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of two images of one shape."""
    return torch.nn.functional.l1_loss(image, target)


def psnr(image: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of images in 0..1, 120 at most."""
    return -10 * torch.nn.functional.mse_loss(image, target).clamp(min=1e-12).log10()


def photo_loss(image: Tensor, target: Tensor, lambda_dssim: float) -> Tensor:
    """``(1 - lambda) L1 + lambda (1 - SSIM)``, the loss of Kerbl et al. (2023)."""
    return (1 - lambda_dssim) * l1(image, target) + lambda_dssim * (1 - ssim(image, target))
