"""Rendering of several views in one call, with the arguments of gsplat's ``rasterization``."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from refer3d.native import check_constant, check_same, check_shape
from refersplat.cameras import NEAR, Camera
from refersplat.ops.project import project, spherical_harmonics
from refersplat.ops.rasterize import rasterize

RENDER_MODES = ("RGB", "D", "ED", "RGB+D", "RGB+ED")
UNUSED = ("packed", "tile_size", "channel_chunk")
"""Arguments of gsplat that say how it computes, not what."""
DEFAULTS = {
    "eps2d": 0.3,
    "rasterize_mode": "classic",
    "camera_model": "pinhole",
    "covars": None,
    "sparse_grad": False,
    "absgrad": False,
    "distributed": False,
    "segmented": False,
}
"""Further arguments of gsplat, with the only value that is supported."""


def rasterization(
    means: Tensor,  # [N, 3]
    quats: Tensor,  # [N, 4]
    scales: Tensor,  # [N, 3]
    opacities: Tensor,  # [N]
    colors: Tensor,  # [N, D] or [C, N, D]; with sh_degree [N, K, 3] or [C, N, K, 3]
    viewmats: Tensor,  # [C, 4, 4]
    Ks: Tensor,  # [C, 3, 3]
    width: int,
    height: int,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
    sh_degree: int | None = None,
    backgrounds: Tensor | None = None,  # [C, D]
    render_mode: str = "RGB",
    **others: Any,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Renders Gaussians from C cameras, as ``gsplat.rasterization`` does.

    Differentiable in means, quats, scales, opacities, colors, backgrounds and viewmats. As in
    gsplat, pixel centres lie at half-integers: the image is the one that ``project`` and
    ``rasterize`` make, whose pixel centres lie at integers, since ``project`` subtracts 0.5; only
    ``meta["means2d"]`` differs by it. Two things are not gsplat's: alpha is at most 0.99, not
    0.999, and a Gaussian is drawn as far as it adds 1/255, which is beyond its radius if opaque.

    Args:
        means: Centres in the world frame.
        quats: Rotations (w, x, y, z) of any length but zero.
        scales: Standard deviations along the Gaussian's axes, in the scene's unit.
        opacities: In 0..1.
        colors: Any number of channels D, or with ``sh_degree`` spherical harmonics of RGB.
        viewmats: World-to-camera matrices; the cameras look along +z, x right, y down.
        Ks: Intrinsic matrices in pixels, without skew; they get no gradients.
        width: Of the images, in pixels.
        height: Of the images, in pixels.
        near_plane: Depth from which on Gaussians are drawn, in the scene's unit.
        far_plane: Depth up to which Gaussians are drawn.
        radius_clip: Gaussians with no larger radius in pixels are left out, unless it is 0.
        sh_degree: Degree of the harmonics that count, 0 to 3; None where ``colors`` are values.
        backgrounds: Added behind the colours; depths have none.
        render_mode: "RGB" for colours, "D" for depth summed with the colours' weights, "ED" for
            that divided by alpha; "RGB+D" and "RGB+ED" append one channel to the colours.
        **others: ``packed``, ``tile_size`` and ``channel_chunk`` change nothing; any other argument
            of gsplat must have gsplat's default.

    Returns:
        colors: [C, H, W, X], X channels by ``render_mode``.
        alphas: [C, H, W, 1].
        meta: means2d [C, N, 2] (for ``retain_grad``, as densification needs it), conics [C, N, 3],
            depths and radii [C, N] (int32, 0 where off the image), opacities [C, N], n_cameras,
            width, height.

    Raises:
        TypeError: If an argument is none of gsplat's.
        ValueError: If a shape, dtype, device, mode or plane does not fit, or an argument has a
            value that is not supported.
    """
    _check(means, opacities, viewmats, Ks, near_plane, far_plane, render_mode, others)
    num_cameras = len(viewmats)
    shape = (len(means), None) if sh_degree is None else (len(means), None, 3)
    if colors.dim() == len(shape):
        colors = colors.expand(num_cameras, *colors.shape)
    check_shape("colors", colors, (num_cameras, *shape))
    num_channels = colors.shape[2] if sh_degree is None else 3
    if backgrounds is not None:
        check_shape("backgrounds", backgrounds, (num_cameras, num_channels))
        check_same("backgrounds", backgrounds, "means", means)

    # The near plane is compiled into the kernels: in other units it lies where it should.
    unit = NEAR / near_plane
    viewmats = viewmats.to(means)
    cameras = [
        Camera(view, k[0][0], k[1][1], k[0][2], k[1][2], width, height)
        for view, k in zip(viewmats * means.new_tensor([1, 1, 1, unit]), Ks.tolist(), strict=True)
    ]
    projected = [project(means * unit, quats, scales * unit, camera) for camera in cameras]
    means2d, conics, depths, radii = map(torch.stack, zip(*projected, strict=True))
    means2d, depths = means2d + 0.5, depths / unit
    is_hidden = (depths > far_plane) | ((radii <= radius_clip) & (radius_clip > 0))
    order_by = (depths * unit).masked_fill(is_hidden, 0)  # at 0, nothing is seen

    values = []  # [C, N, *]
    if "RGB" in render_mode:
        if sh_degree is not None:
            seen_from = zip(colors, torch.linalg.inv(viewmats)[:, :3, 3], strict=True)
            shades = [spherical_harmonics(means, sh, at, sh_degree) for sh, at in seen_from]
            colors = torch.stack(shades)
        values.append(colors)
    if "D" in render_mode:
        values.append(depths[..., None])
    splats = zip(means2d, conics, order_by, torch.cat(values, dim=2), strict=True)
    rendered = [
        rasterize(centres - 0.5, conic, depth, opacities, value, height, width)
        for centres, conic, depth, value in splats
    ]
    images, left = map(torch.stack, zip(*rendered, strict=True))  # [C, X, H, W], [C, H, W]
    alphas = 1 - left
    if "RGB" in render_mode and backgrounds is not None:
        behind = F.pad(backgrounds, (0, images.shape[1] - num_channels))
        images = images + left[:, None] * behind[..., None, None]
    if "ED" in render_mode:
        depth = images[:, -1:] / alphas[:, None].clamp_min(1e-10)
        images = torch.cat([images[:, :-1], depth], dim=1)
    meta = {
        **{"means2d": means2d, "conics": conics, "depths": depths, "radii": radii},
        "opacities": opacities.expand(num_cameras, -1),
        **{"n_cameras": num_cameras, "width": width, "height": height},
    }
    return images.permute(0, 2, 3, 1), alphas[..., None], meta


def _check(
    means: Tensor,
    opacities: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    near_plane: float,
    far_plane: float,
    render_mode: str,
    others: dict[str, Any],
) -> None:
    """Checks what ``project`` and ``rasterize`` do not."""
    for name, value in others.items():
        if name not in (*UNUSED, *DEFAULTS):
            raise TypeError(f"rasterization got an unexpected argument {name!r}")
        if name in DEFAULTS and value != DEFAULTS[name]:
            raise ValueError(f"{name} must be {DEFAULTS[name]!r}, got {value!r}")
    check_shape("means", means, (None, 3))
    check_shape("opacities", opacities, (len(means),))
    check_shape("viewmats", viewmats, (None, 4, 4))
    check_shape("Ks", Ks, (len(viewmats), 3, 3))
    check_constant("Ks", Ks)
    if not len(viewmats):
        raise ValueError("viewmats must hold at least one camera, got none")
    if render_mode not in RENDER_MODES:
        modes = ", ".join(RENDER_MODES)
        raise ValueError(f"render_mode must be one of {modes}, got {render_mode!r}")
    if not 0 < near_plane < far_plane:
        raise ValueError(f"planes must be 0 < near < far, got {near_plane} and {far_plane}")
