"""Rendering of several views in one call, with the arguments of gsplat's ``rasterization``."""

from __future__ import annotations

from typing import Any

import torch
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
    if backgrounds is not None:
        num_channels = colors.shape[2] if sh_degree is None else 3
        check_shape("backgrounds", backgrounds, (num_cameras, num_channels))
        check_same("backgrounds", backgrounds, "means", means)

    # The near plane is compiled into the kernels: in other units it lies where it should.
    unit = NEAR / near_plane
    viewmats = viewmats.to(means)
    positions = torch.linalg.inv(viewmats)[:, :3, 3]
    views = viewmats * means.new_tensor([1, 1, 1, unit])
    footprints = [
        project(
            means * unit,
            quats,
            scales * unit,
            Camera(view, k[0][0], k[1][1], k[0][2], k[1][2], width, height),
        )
        for view, k in zip(views, Ks.tolist(), strict=True)
    ]
    means2d, conics, depths, radii = map(torch.stack, zip(*footprints, strict=True))
    means2d, depths = means2d + 0.5, depths / unit
    is_hidden = depths > far_plane
    if radius_clip > 0:
        is_hidden = is_hidden | (radii <= radius_clip)
    order_by = (depths * unit).masked_fill(is_hidden, 0)  # at 0, nothing is seen

    images, alphas = [], []
    for i in range(num_cameras):
        values = []
        if "RGB" in render_mode:
            shades = colors[i]
            if sh_degree is not None:
                shades = spherical_harmonics(means, shades, positions[i], sh_degree)
            values.append(shades)
        if "D" in render_mode:
            values.append(depths[i, :, None])
        splats = (means2d[i] - 0.5, conics[i], order_by[i], opacities)
        image, transmittance = rasterize(*splats, torch.cat(values, dim=1), height, width)
        alpha = 1 - transmittance
        parts = list(image.split([value.shape[1] for value in values]))
        if "RGB" in render_mode and backgrounds is not None:
            parts[0] = parts[0] + transmittance * backgrounds[i, :, None, None]
        if "ED" in render_mode:
            parts[-1] = parts[-1] / alpha.clamp_min(1e-10)
        images.append(torch.cat(parts).permute(1, 2, 0))
        alphas.append(alpha[..., None])
    meta = {
        "means2d": means2d,
        "conics": conics,
        "depths": depths,
        "radii": radii,
        "opacities": opacities.expand(num_cameras, -1),
        "n_cameras": num_cameras,
        "width": width,
        "height": height,
    }
    return torch.stack(images), torch.stack(alphas), meta


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
