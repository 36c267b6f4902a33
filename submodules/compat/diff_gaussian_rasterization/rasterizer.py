"""Settings and module of the rasterizer; the work is done by ``refersplat.ops``."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from diff_gaussian_rasterization.covariance import (
    covariances_of,
    project_covariances,
    project_orthographic,
)
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
    """[C], or a list, behind the colours; features have no background."""
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
        view = self.raster_settings.viewmatrix.reshape(4, 4)
        return positions @ view[:3, 2] + view[3, 2] > NEAR

    @torch.no_grad()
    def visible_filter(
        self,
        means3D: Tensor,  # [N, 3]
        scales: Tensor | None = None,  # [N, 3]
        rotations: Tensor | None = None,  # [N, 4]
        cov3D_precomp: Tensor | None = None,  # [N, 6]
    ) -> Tensor:
        """[N] int32 radii in pixels, 0 for what is not visible, as Scaffold-GS asks for them."""
        return self.project(*in_float32(means3D, scales, rotations, cov3D_precomp)).radii

    def forward(
        self,
        means3D: Tensor,  # [N, 3]
        means2D: Tensor | None,  # [N, 3]
        opacities: Tensor,  # [N, 1] or [N]
        shs: Tensor | None = None,  # [N, K, 3]
        colors_precomp: Tensor | None = None,  # [N, C]
        scales: Tensor | None = None,  # [N, 3]
        rotations: Tensor | None = None,  # [N, 4]
        cov3D_precomp: Tensor | None = None,  # [N, 6]
        language_feature_precomp: Tensor | None = None,  # [N, D]
        dc: Tensor | None = None,  # [N, 1, 3]
        semantic_feature: Tensor | None = None,  # [N, D] or [N, 1, D]
        sh_objs: Tensor | None = None,  # [N, D] or [N, 1, D]
    ) -> tuple[Tensor, ...]:
        """Draws the Gaussians; differentiable in every argument.

        Args:
            means3D: Centres in the world.
            means2D: Its values do not count. Its gradient is that of the centres on the screen, in
                halves of the image's width and height, which densification goes by.
            opacities: In 0..1.
            shs: Spherical harmonics of the colours, without the first if ``dc`` is given, or
            colors_precomp: the colours themselves.
            scales: Standard deviations along the axes, and
            rotations: quaternions wxyz, or
            cov3D_precomp: covariances as (xx, xy, xz, yy, yz, zz).
            language_feature_precomp: Drawn like colours, but without a background. So are
            dc: First harmonics of the colours.
            semantic_feature: Feature 3DGS's, and
            sh_objs: Gaussian Grouping's features.

        Returns:
            The outputs of :func:`set_outputs`, or by the arguments, as the module's documentation
            lists: color [C, H, W], radii [N] int32 in pixels with 0 for what is not visible,
            inverse depth [1, H, W], features [D, H, W].
        """
        settings = self.raster_settings
        means3D, means2D, opacities, shs, colors_precomp, dc = in_float32(
            means3D, means2D, opacities, shs, colors_precomp, dc
        )
        check_one("shs", shs, "colors_precomp", colors_precomp)
        if opacities.numel() != len(means3D):
            raise ValueError(
                f"opacities must have shape [{len(means3D)}, 1], got {list(opacities.shape)}"
            )
        projected = self.project(*in_float32(means3D, scales, rotations, cov3D_precomp))
        means2d = projected.means2d
        if means2D is not None:
            check_shape("means2D", means2D, (len(means3D), None))
            half_size = means2D.new_tensor([settings.image_width / 2, settings.image_height / 2])
            means2d = means2d + (means2D - means2D.detach())[:, :2] * half_size
        opacities = opacities.reshape(-1)
        if settings.antialiasing:
            opacities = opacities * kept_by_the_low_pass(projected)

        if shs is not None:
            shs = shs if dc is None else torch.cat([dc.reshape(-1, 1, 3), shs], dim=1)
            position = torch.as_tensor(settings.campos).reshape(3)
            colors_precomp = spherical_harmonics(means3D, shs, position, settings.sh_degree)
        assert colors_precomp is not None, "one of the two ways"
        values = {"color": colors_precomp}
        outputs = OUTPUTS or self.outputs()
        for name, features, order in (
            ("language_feature_precomp", language_feature_precomp, ("color", "features", "radii")),
            ("semantic_feature", semantic_feature, ("color", "features", "radii", "depth")),
            ("sh_objs", sh_objs, ("color", "radii", "features")),
        ):
            if features is not None and settings.include_feature is not False:
                features = in_float32(features)[0].flatten(1)
                check_shape(name, features, (len(means3D), None))
                values["features"] = features
                extra = tuple(n for n in outputs if n not in order)
                outputs = OUTPUTS or (*order, *extra)
        depths = projected.depths
        if "depth" in outputs:
            values["depth"] = depths[:, None]
        if "inverse_depth" in outputs:
            values["inverse_depth"] = 1 / depths.where(depths > NEAR, 1)[:, None]
        image, transmittance = rasterize(
            *(means2d, projected.conics, depths, opacities, torch.cat([*values.values()], dim=1)),
            *(settings.image_height, settings.image_width),
        )
        drawn = dict(zip(values, image.split([v.shape[1] for v in values.values()]), strict=True))
        background = background_of(settings, drawn["color"])
        drawn["color"] = drawn["color"] + transmittance * background[:, None, None]
        drawn |= {"radii": projected.radii, "alpha": (1 - transmittance)[None]}
        # LangSplat unpacks three, features or not.
        drawn.setdefault("features", image.new_zeros(1))
        return tuple(drawn[name] for name in outputs)

    def outputs(self) -> tuple[str, ...]:
        """Names of the results by the family of the settings."""
        settings = self.raster_settings
        names = ["color", "radii"]
        if settings.include_feature is not None:
            names.insert(1, "features")
        if settings.antialiasing is not None:
            names.append("inverse_depth")
        return tuple(names)

    def project(
        self,
        means: Tensor,  # [N, 3]
        scales: Tensor | None,  # [N, 3]
        rotations: Tensor | None,  # [N, 4]
        covariances: Tensor | None,  # [N, 6]
    ) -> Projected:
        """The footprints of the Gaussians, whose shapes are given in one of two ways."""
        settings = self.raster_settings
        check_one("scales and rotations", scales, "cov3D_precomp", covariances)
        if (scales is None) != (rotations is None):
            raise ValueError("scales and rotations must be given together")
        to_clip = clip_matrix(settings)
        is_parallel = is_orthographic(to_clip)
        if scales is not None and rotations is not None:
            scales = scales * settings.scale_modifier
            if not is_parallel:
                return project(means, rotations, scales, camera_of(settings, to_clip))
            covariances = covariances_of(scales, rotations)
        assert covariances is not None, "one of the two ways"
        if not is_parallel:
            return project_covariances(means, covariances, camera_of(settings, to_clip))
        size = (settings.image_width, settings.image_height)
        view = settings.viewmatrix.reshape(4, 4).T
        return project_orthographic(means, covariances, view, to_clip, *size)


def set_outputs(*names: str) -> None:
    """Sets what every call returns from now on; without names, what its settings say.

    For programs written for a fork that returns more than they tell by their arguments. The
    environment variable ``DIFF_GAUSSIAN_RASTERIZATION_OUTPUTS`` does the same, as in
    ``color,radii,depth,alpha``.

    Args:
        *names: Of "color" [C, H, W], "radii" [N], "depth" [1, H, W] (summed with the colours'
            weights), "inverse_depth" [1, H, W], "alpha" [1, H, W] and "features" [D, H, W].

    Raises:
        ValueError: There is no such output.
    """
    global OUTPUTS
    for name in names:
        if name not in NAMES:
            raise ValueError(f"outputs must be among {', '.join(NAMES)}, got {name!r}")
    OUTPUTS = names


NAMES = ("color", "radii", "depth", "inverse_depth", "alpha", "features")
OUTPUTS: tuple[str, ...] = ()
set_outputs(*filter(None, os.environ.get("DIFF_GAUSSIAN_RASTERIZATION_OUTPUTS", "").split(",")))


def in_float32(*tensors: Any) -> Any:
    """The tensors, those of 16 bits in float32, in which the ops compute."""
    halves = (torch.float16, torch.bfloat16)
    return [t.float() if t is not None and t.dtype in halves else t for t in tensors]


def background_of(settings: GaussianRasterizationSettings, color: Tensor) -> Tensor:  # [C]
    """The background; one gray serves any number of colours.

    Raises:
        ValueError: It has another number of colours than the Gaussians.
    """
    background = torch.as_tensor(settings.bg).to(color).reshape(-1)
    if len(background) == len(color):
        return background
    if not len(background) or (background != background[0]).any():
        raise ValueError(
            f"bg must have one value for each of the {len(color)} colours, or the same for all, "
            f"got {background.tolist()}"
        )
    return background[:1].expand(len(color))


def check_one(name: str, value: object, other_name: str, other: object) -> None:
    """Checks that exactly one of two arguments is given."""
    if (value is None) == (other is None):
        got = "neither" if value is None else "both"
        raise ValueError(f"exactly one of {name} or {other_name} must be given, got {got}")


def clip_matrix(settings: GaussianRasterizationSettings) -> Tensor:  # [4, 4]
    """From the camera's frame to clip space, transposed, in float64."""
    # Some programs keep a batch of one.
    view, projection = (m.reshape(4, 4) for m in (settings.viewmatrix, settings.projmatrix))
    return torch.linalg.solve(view.double(), projection.double())


def is_orthographic(to_clip: Tensor) -> bool:
    """Whether w does not depend on the point."""
    return bool((to_clip[:3, 3].abs() < 1e-6 * to_clip[3, 3].abs()).all())


def camera_of(settings: GaussianRasterizationSettings, to_clip: Tensor) -> Camera:
    """The settings' camera; its principal point is where the projection matrix puts it."""
    width, height = settings.image_width, settings.image_height
    # A point on the optical axis is projected onto the principal point, (x, y, ., w) in clip space.
    x, y, _, w = to_clip[2].tolist()
    return Camera(
        world_to_camera=settings.viewmatrix.reshape(4, 4).T,
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
