"""Structural similarity on a GPU: a block of threads for each tile of a channel."""

from __future__ import annotations

import torch
from torch import Tensor

from refer3d.native.cuda import Kernels, blocks_for
from refer3d.native.cuda.launcher import REALS

TILE = 16
THREADS = 256


def ssim(gpu: Kernels, image: Tensor, target: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor]:
    """The mean similarity [], and its gradient by the image, empty without ``with_gradient``."""
    image, target = image.contiguous(), target.contiguous()
    channels, height, width = image.shape
    tiles = blocks_for(width, TILE) * blocks_for(height, TILE)
    sums = torch.empty(channels, tiles, dtype=torch.float64, device=image.device)
    slopes = image.new_empty(3, *image.shape) if with_gradient else None
    grid, defines, size = (tiles, channels), {"REAL": REALS[image.dtype]}, image.numel()
    arguments = (image, target, size, height, width, slopes, sums)
    gpu.launch("ssim", "similarity", grid, THREADS, *arguments, **defines)
    gradient = image.new_empty(image.shape if with_gradient else 0)
    if with_gradient:
        arguments = (image, target, slopes, size, height, width, gradient)
        gpu.launch("ssim", "similarity_gradient", grid, THREADS, *arguments, **defines)
    return (sums.sum() / size).to(image.dtype), gradient
