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
    return _footprints(means2d, depths, to_pixels, covariances, size)


def project_orthographic(
    means: Tensor,  # [N, 3]
    covariances: Tensor,  # [N, 6]
    view: Tensor,  # [4, 4]
    to_clip: Tensor,  # [4, 4]
    width: int,
    height: int,
) -> Projected:
    """Projects Gaussians along parallel rays; the footprints do not depend on the depth.

    Args:
        means: Centres in the world.
        covariances: As of :func:`project_covariances`.
        view: World to camera.
        to_clip: Camera to clip space, transposed; w is the same for all points.
        width: Of the image, in pixels.
        height: Of the image, in pixels.
    """
    to_clip = (to_clip / to_clip[3, 3]).to(means)
    view, half = view.to(means), means.new_tensor([width / 2, height / 2])
    local = means @ view[:3, :3].T + view[:3, 3]
    means2d = (local @ to_clip[:3, :2] + to_clip[3, :2] + 1) * half - 0.5
    to_pixels = (to_clip[:3, :2] * half).T @ view[:3, :3]
    to_pixels = to_pixels.expand(len(means), 2, 3)
    return _footprints(means2d, local[:, 2], to_pixels, covariances, (width, height))


def covariances_of(scales: Tensor, rotations: Tensor) -> Tensor:  # [N, 6]
    """Covariances as (xx, xy, xz, yy, yz, zz)."""
    factor = reference.rotation(rotations) * scales[:, None, :]
    return (factor @ factor.transpose(1, 2)).flatten(1)[:, [0, 1, 2, 4, 5, 8]]


def _footprints(
    means2d: Tensor,  # [N, 2]
    depths: Tensor,  # [N]
    to_pixels: Tensor,  # [N, 2, 3]
    covariances: Tensor,  # [N, 6]
    size: tuple[int, int],
) -> Projected:
    full = covariances[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].view(-1, 3, 3)
    on_screen = to_pixels @ full @ to_pixels.transpose(1, 2)
    conics, radii = reference.footprints(on_screen, on_screen.det(), means2d, depths, *size)
    return Projected(means2d, conics, depths, radii)
