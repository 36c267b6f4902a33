"""Projection of Gaussians whose covariances are given, instead of scales and rotations."""

from __future__ import annotations

from torch import Tensor

from refer3d.native import check_shape
from refersplat.cameras import Camera
from refersplat.ops import Projected, reference


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
    size = (camera.width, camera.height)
    lens = (camera.fx, camera.fy, camera.cx, camera.cy)
    means2d, depths, to_pixels = reference.project_centres(
        means, camera.world_to_camera, lens, *size
    )
    full = covariances[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].view(-1, 3, 3)
    on_screen = to_pixels @ full @ to_pixels.transpose(1, 2)
    conics, radii = reference.footprints(on_screen, means2d, depths, *size)
    return Projected(means2d, conics, depths, radii)
