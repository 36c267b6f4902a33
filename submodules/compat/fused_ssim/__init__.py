"""``from fused_ssim import fused_ssim``: structural similarity as 3DGS code bases call it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from refer3d.native import check_shape
from refersplat.ops.ssim import ssim

__all__ = ["fused_ssim"]


def fused_ssim(
    img1: Tensor,  # [B, C, H, W]
    img2: Tensor,  # [B, C, H, W]
    padding: Literal["same", "valid"] = "same",
    train: bool = True,
) -> Tensor:  # scalar
    """Mean structural similarity of a batch of images in 0..1.

    Args:
        img1: Floats; 16-bit ones are computed in float32.
        img2: Of the same shape; without gradients.
        padding: As of ``refersplat.ops.ssim.ssim``.
        train: Without it ``img1`` gets no gradients.

    Raises:
        ValueError: If shapes, dtypes or the padding do not fit.
    """
    check_shape("img1", img1, (None, None, None, None))
    check_shape("img2", img2, img1.shape)
    if img1.dtype in (torch.float16, torch.bfloat16):
        return fused_ssim(img1.float(), img2.float(), padding, train).to(img1.dtype)
    with torch.set_grad_enabled(train and torch.is_grad_enabled()):
        return ssim(img1.flatten(0, 1), img2.flatten(0, 1), padding)
