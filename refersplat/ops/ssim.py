"""Structural similarity of images (Wang et al. 2004)."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from refer3d.native import (
    apply,
    as_array,
    check_real,
    check_same,
    check_shape,
    is_compiled,
    num_threads,
    operator,
    outside_autocast,
)
from refer3d.native.cuda import Kernels, blocks_for
from refer3d.native.cuda.launcher import REALS

WINDOW = 11
"""Side of the Gaussian window in pixels."""
SIGMA = 1.5
C1 = 0.01**2
C2 = 0.03**2
TILE, THREADS = 16, 256
"""Side in pixels and threads of a block of the CUDA kernels."""


def ssim(
    image: Tensor,  # [C, H, W]
    target: Tensor,  # [C, H, W]
    padding: Literal["same", "valid"] = "same",
) -> Tensor:  # scalar
    """Mean structural similarity of images in 0..1.

    Differentiable in ``image``; ``target`` is a constant.

    Args:
        image: float32 or float64.
        target: Of the same shape, dtype and device.
        padding: ``"same"`` takes all pixels, with zeros outside of the images, as 3DGS does;
            ``"valid"`` those whose window of 11 x 11 pixels lies inside.

    Raises:
        ValueError: If the two or the padding do not fit, or there is no pixel to take.
    """
    check_shape("image", image, (None, None, None))
    check_real("image", image)
    check_shape("target", target, image.shape)
    check_same("target", target, "image", image)
    if not image.numel():
        raise ValueError(f"image must have pixels, got shape {list(image.shape)}")
    if padding not in ("same", "valid"):
        raise ValueError(f"padding must be 'same' or 'valid', got {padding!r}")
    if padding == "valid" and min(image.shape[1:]) < WINDOW:
        raise ValueError(
            f"image must have at least {WINDOW} x {WINDOW} pixels for padding 'valid', got shape "
            f"{list(image.shape)}"
        )
    if not is_compiled("refersplat", image):
        return ssim_reference(image, target.detach(), padding)
    is_learned = image.requires_grad and torch.is_grad_enabled()
    return apply(_Ssim, image, target.detach(), is_learned, padding == "valid")


@outside_autocast
def ssim_reference(image: Tensor, target: Tensor, padding: str = "same") -> Tensor:
    """The similarity in plain PyTorch."""
    moments = torch.cat([image, target, image * image, target * target, image * target])
    mean_x, mean_y, square_x, square_y, product = _blur(moments).chunk(5)
    luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    covariance = product - mean_x * mean_y
    variances = square_x - mean_x**2 + square_y - mean_y**2
    similarity = luminance * (2 * covariance + C2) / (variances + C2)
    border = WINDOW // 2 if padding == "valid" else 0
    return F.pad(similarity, [-border] * 4).mean()


def _blur(maps: Tensor) -> Tensor:  # [C, H, W] -> [C, H, W]
    offsets = torch.arange(WINDOW, dtype=maps.dtype, device=maps.device) - WINDOW // 2
    weights = torch.exp(-offsets.square() / (2 * SIGMA**2))
    window = (weights / weights.sum()).expand(len(maps), 1, 1, WINDOW)
    half = WINDOW // 2
    across = F.conv2d(maps[None], window, padding=(0, half), groups=len(maps))
    return F.conv2d(across, window.transpose(2, 3), padding=(half, 0), groups=len(maps))[0]


class _Ssim(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, image: Tensor, target: Tensor, with_gradient: bool, is_valid: bool
    ) -> Tensor:
        similarity, gradient = _ssim(image, target, with_gradient, is_valid)
        ctx.save_for_backward(gradient)
        return similarity

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return grad * gradient, None, None, None


@operator("refersplat::ssim")
def _ssim(
    image: Tensor, target: Tensor, with_gradient: bool, is_valid: bool
) -> tuple[Tensor, Tensor]:
    """The similarity, and its derivative by ``image``, which is empty without ``with_gradient``."""
    return image.new_empty(()), image.new_empty(image.shape if with_gradient else 0)


@_ssim.cpu
def _(
    native: Any, image: Tensor, target: Tensor, with_gradient: bool, is_valid: bool
) -> tuple[Tensor, Tensor]:
    _, gradient = _ssim.empty(image, target, with_gradient, is_valid)
    mean = native.ssim_valid if is_valid else native.ssim
    arrays = (as_array(image), as_array(target))
    return image.new_tensor(mean(*arrays, num_threads(), gradient.numpy())), gradient


@_ssim.cuda
def _(
    gpu: Kernels, image: Tensor, target: Tensor, with_gradient: bool, is_valid: bool
) -> tuple[Tensor, Tensor]:
    image, target = image.contiguous(), target.contiguous()
    channels, height, width = image.shape
    tiles = blocks_for(width, TILE) * blocks_for(height, TILE)
    sums = torch.empty(channels, tiles, dtype=torch.float64, device=image.device)
    slopes = image.new_empty(3, *image.shape) if with_gradient else None
    grid, defines, size = (tiles, channels), {"REAL": REALS[image.dtype]}, image.numel()
    border = WINDOW // 2 if is_valid else 0
    pixels = channels * (height - 2 * border) * (width - 2 * border)
    arguments = (image, target, size, height, width, border, slopes, sums)
    gpu.launch("ssim", "similarity", grid, THREADS, *arguments, **defines)
    _, gradient = _ssim.empty(image, target, with_gradient, is_valid)
    if with_gradient:
        arguments = (image, target, slopes, size, height, width, pixels, gradient)
        gpu.launch("ssim", "similarity_gradient", grid, THREADS, *arguments, **defines)
    return (sums.sum() / pixels).to(image.dtype), gradient
