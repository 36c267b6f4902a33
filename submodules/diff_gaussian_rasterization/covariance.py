"""Projection of Gaussians whose covariances are given, instead of scales and rotations."""

from __future__ import annotations

import torch
from torch import Tensor

from native import check_shape
from refersplat.cameras import Camera
from refersplat.ops import Projected

NEAR = 0.2
"""Depth up to which a Gaussian is left out."""
LOW_PASS = 0.3
"""What the projection adds to the variances of a footprint, in square pixels."""
EDGE = 1.3
"""A footprint is shaped as if it lay at most this many half fields of view off the axis."""


def project_covariances(
    means: Tensor,  # [N, 3]
    covariances: Tensor,  # [N, 6]
    camera: Camera,
) -> Projected:
    """Projects Gaussians as ``refersplat.ops.project`` does.

    An own way, since scales and rotations that belong to a covariance have no derivatives where
    two scales are equal.

    Args:
        means: Centres in the world.
        covariances: Upper triangles in the world, as (xx, xy, xz, yy, yz, zz).
        camera: Onto whose image.

    Returns:
        The footprints; differentiable in both tensors.
    """
    check_shape("means3D", means, (None, 3))
    check_shape("cov3D_precomp", covariances, (len(means), 6))
    view = camera.world_to_camera.to(means)
    rotation = view[:3, :3]
    in_camera = means @ rotation.T + view[:3, 3]
    is_in_front = in_camera[:, 2] > NEAR
    # What is not in front gets a harmless depth, so that nothing infinite meets a zero gradient.
    x, y, depths = torch.where(is_in_front[:, None], in_camera, 1).unbind(dim=1)
    slope_x = (x / depths).clamp(-EDGE * camera.tan_x, EDGE * camera.tan_x)
    slope_y = (y / depths).clamp(-EDGE * camera.tan_y, EDGE * camera.tan_y)
    zero = torch.zeros_like(depths)
    to_screen = torch.stack(
        [
            torch.stack([camera.fx / depths, zero, -camera.fx * slope_x / depths], dim=1),
            torch.stack([zero, camera.fy / depths, -camera.fy * slope_y / depths], dim=1),
        ],
        dim=1,
    )  # [N, 2, 3]
    from_world = to_screen @ rotation
    full = covariances[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].view(-1, 3, 3)
    footprints = from_world @ full @ from_world.transpose(1, 2)  # [N, 2, 2]
    xx, xy, yy = footprints[:, 0, 0] + LOW_PASS, footprints[:, 0, 1], footprints[:, 1, 1] + LOW_PASS
    determinant = xx * yy - xy.square()
    means2d = torch.stack(
        [camera.fx * x / depths + camera.cx - 0.5, camera.fy * y / depths + camera.cy - 0.5], dim=1
    )

    with torch.no_grad():
        middle = (xx + yy) / 2
        widest = middle + (middle.square() - determinant).clamp(min=0.1).sqrt()
        radii = (3 * widest.sqrt()).ceil()
        last = means2d.new_tensor([camera.width - 1, camera.height - 1])
        reaches = (means2d + radii[:, None] >= 0) & (means2d - radii[:, None] <= last)
        radii = torch.where(is_in_front & reaches.all(dim=1), radii, 0).int()
    conics = torch.stack([yy, -xy, xx], dim=1) / determinant[:, None]
    return Projected(means2d, conics, in_camera[:, 2], radii)
