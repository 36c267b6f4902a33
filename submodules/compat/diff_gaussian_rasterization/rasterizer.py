"""Settings and module of the rasterizer; the work is done by ``refersplat.ops``."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from diff_gaussian_rasterization.covariance import project_covariances
from refer3d.native import check_shape
from refersplat.cameras import NEAR, Camera
from refersplat.ops import Projected, project, rasterize, reference, spherical_harmonics


class GaussianRasterizationSettings(NamedTuple):
    """One view, and how it is drawn."""

    image_height: int
    image_width: int
    tanfovx: float
    """Tangent of half the field of view."""
    tanfovy: float
    bg: Tensor
    """[C], behind the colours; features have no background."""
    scale_modifier: float
    """All scales are multiplied by it, but not given covariances."""
    viewmatrix: Tensor
    """[4, 4], world to camera, transposed."""
    projmatrix: Tensor
    """[4, 4], world to clip space, transposed; tells where the principal point is."""
    sh_degree: int
    """Spherical harmonics up to this degree are used."""
    campos: Tensor
    """[3], the camera in the world."""
    prefiltered: bool = False
    """Without effect: what is not visible is always left out."""
    debug: bool = False
    """Without effect."""
    antialiasing: bool | None = None
    """Fade out what is smaller than a pixel instead of drawing it as large as one."""
    include_feature: bool | None = None
    """False leaves the language features out."""


class GaussianRasterizer(nn.Module):
    """Draws Gaussians in the view of its settings."""

    def __init__(self, raster_settings: GaussianRasterizationSettings) -> None:
        super().__init__()
        self.raster_settings = raster_settings

    @torch.no_grad()
    def markVisible(self, positions: Tensor) -> Tensor:
        """[N] bool: which of the points [N, 3] are in front of the near plane."""
        view = self.raster_settings.viewmatrix
        return positions @ view[:3, 2] + view[3, 2] > NEAR

    def forward(
        self,
        means3D: Tensor,  # [N, 3]
        means2D: Tensor,  # [N, 3]
        opacities: Tensor,  # [N, 1] or [N]
        shs: Tensor | None = None,  # [N, K, 3]
        colors_precomp: Tensor | None = None,  # [N, C]
        scales: Tensor | None = None,  # [N, 3]
        rotations: Tensor | None = None,  # [N, 4]
        cov3D_precomp: Tensor | None = None,  # [N, 6]
        language_feature_precomp: Tensor | None = None,  # [N, D]
    ) -> tuple[Tensor, ...]:
        """Draws the Gaussians; differentiable in every argument.

        Args:
            means3D: Centres in the world.
            means2D: Its values do not count. Its gradient is that of the centres on the screen, in
                halves of the image's width and height, which densification goes by.
            opacities: In 0..1.
            shs: Spherical harmonics of the colours, or
            colors_precomp: the colours themselves.
            scales: Standard deviations along the axes, and
            rotations: quaternions wxyz, or
            cov3D_precomp: covariances as (xx, xy, xz, yy, yz, zz).
            language_feature_precomp: Drawn like colours, but without a background.

        Returns:
            What the module's documentation lists: color [C, H, W], radii [N] int32 in pixels with 0
            for what is not visible, inverse depth [1, H, W], language features [D, H, W].
        """
        settings = self.raster_settings
        check_one("shs", shs, "colors_precomp", colors_precomp)
        if opacities.numel() != len(means3D):
            raise ValueError(
                f"opacities must have shape [{len(means3D)}, 1], got {list(opacities.shape)}"
            )
        check_shape("means2D", means2D, (len(means3D), None))
        projected = self.project(means3D, scales, rotations, cov3D_precomp)
        half_size = means2D.new_tensor([settings.image_width / 2, settings.image_height / 2])
        means2d = projected.means2d + (means2D - means2D.detach())[:, :2] * half_size
        opacities = opacities.reshape(-1)
        if settings.antialiasing:
            opacities = opacities * kept_by_the_low_pass(projected)

        if shs is not None:
            colors_precomp = spherical_harmonics(means3D, shs, settings.campos, settings.sh_degree)
        values = [colors_precomp]
        features = None if settings.include_feature is False else language_feature_precomp
        if features is not None:
            check_shape("language_feature_precomp", features, (len(means3D), None))
            values.append(features)
        if settings.antialiasing is not None:
            depths = projected.depths
            values.append(1 / depths.where(depths > NEAR, 1)[:, None])
        image, transmittance = rasterize(
            means2d,
            projected.conics,
            projected.depths,
            opacities,
            torch.cat(values, dim=1),
            settings.image_height,
            settings.image_width,
        )
        color, *others = image.split([value.shape[1] for value in values])
        drawn = [color + transmittance * settings.bg.to(color)[:, None, None]]
        if features is not None:
            drawn.append(others.pop(0))
        elif settings.include_feature is not None:
            drawn.append(color.new_zeros(1))  # LangSplat unpacks three, features or not
        return (*drawn, projected.radii, *others)

    def project(
        self,
        means: Tensor,  # [N, 3]
        scales: Tensor | None,  # [N, 3]
        rotations: Tensor | None,  # [N, 4]
        covariances: Tensor | None,  # [N, 6]
    ) -> Projected:
        """The footprints of the Gaussians, whose shapes are given in one of two ways."""
        check_one("scales and rotations", scales, "cov3D_precomp", covariances)
        if (scales is None) != (rotations is None):
            raise ValueError("scales and rotations must be given together")
        camera = camera_of(self.raster_settings)
        if covariances is not None:
            return project_covariances(means, covariances, camera)
        return project(means, rotations, scales * self.raster_settings.scale_modifier, camera)


def check_one(name: str, value: object, other_name: str, other: object) -> None:
    """Checks that exactly one of two arguments is given."""
    if (value is None) == (other is None):
        got = "neither" if value is None else "both"
        raise ValueError(f"exactly one of {name} or {other_name} must be given, got {got}")


def camera_of(settings: GaussianRasterizationSettings) -> Camera:
    """The settings' camera; its principal point is where the projection matrix puts it."""
    width, height = settings.image_width, settings.image_height
    # Some programs keep a batch of one.
    view, projection = (m.reshape(4, 4) for m in (settings.viewmatrix, settings.projmatrix))
    # A point on the optical axis is projected onto the principal point, (x, y, ., w) in clip space.
    to_clip = torch.linalg.solve(view.double(), projection.double())
    x, y, _, w = to_clip[2].tolist()
    return Camera(
        world_to_camera=view.T,
        fx=width / (2 * settings.tanfovx),
        fy=height / (2 * settings.tanfovy),
        cx=(x / w + 1) * width / 2,
        cy=(y / w + 1) * height / 2,
        width=width,
        height=height,
    )


def kept_by_the_low_pass(projected: Projected) -> Tensor:  # [N]
    """Share of a footprint's area that it had before the projection widened it."""
    xx, xy, yy = projected.conics.unbind(dim=1)
    # Not those with a radius: a Gaussian is drawn as far as it adds 1/255, which may be farther.
    is_visible = projected.depths > NEAR
    determinant = (xx * yy - xy.square()).where(is_visible, 1)  # of the inverse covariance
    narrow = (yy / determinant - reference.BLUR) * (xx / determinant - reference.BLUR)
    narrow = narrow - (xy / determinant).square()
    kept = (narrow * determinant).clamp(min=2.5e-5).sqrt()
    return torch.where(is_visible, kept, 0)
