"""The ops in plain PyTorch: rendering by alpha blending (Kerbl et al. 2023), and knn.

Runs on any device and in any float dtype; gradients are autograd's. Every Gaussian meets every
pixel and every query every point, so it is for tests and small scenes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from refer3d.native.checks import outside_autocast
from refersplat.cameras import NEAR

BLUR = 0.3
MAX_ALPHA = 0.99
MIN_ALPHA = 1 / 255
MIN_TRANSMITTANCE = 1e-4
TILE = 16
BLEND_BLOCK = 1 << 23
"""(Gaussian, pixel) pairs that are held at once."""
KNN_BLOCK = 1 << 24
"""Distances that are held at once."""

SH_0 = 0.28209479177387814
SH_1 = 0.4886025119029199
SH_2 = (1.0925484305920792, 0.31539156525252005, 0.5462742152960396)
SH_3 = (
    0.5900435899266435,
    2.890611442640554,
    0.4570457994644658,
    0.3731763325901154,
    1.445305721320277,
)


def rotation(quats: Tensor) -> Tensor:  # [N, 4] -> [N, 3, 3]
    """Rotation matrices of quaternions (w, x, y, z) of any length."""
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(dim=-1)
    rows = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack(rows, dim=-1).view(-1, 3, 3)


@outside_autocast
def project(
    means: Tensor,  # [N, 3]
    quats: Tensor,  # [N, 4]
    scales: Tensor,  # [N, 3]
    world_to_camera: Tensor,  # [4, 4]
    lens: Sequence[float],
    width: int,
    height: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Centres [N, 2], conics [N, 3], depths [N] and radii [N] of Gaussians on the image."""
    means2d, depths, to_pixels = project_centres(means, world_to_camera, lens, width, height)
    factor = to_pixels @ (rotation(quats) * scales[:, None, :])  # [N, 2, 3]
    covariances = factor @ factor.transpose(1, 2)
    # By Cauchy and Binet: of a needle, a c - b b has no right digit in float32.
    determinants = torch.linalg.cross(factor[:, 0], factor[:, 1]).square().sum(dim=1)
    conics, radii = footprints(covariances, determinants, means2d, depths, width, height)
    return means2d, conics, depths, radii


def project_centres(
    means: Tensor,  # [N, 3]
    world_to_camera: Tensor,  # [4, 4]
    lens: Sequence[float],
    width: int,
    height: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Centres [N, 2], depths [N], and pixels by world lengths around the centres [N, 2, 3]."""
    fx, fy, cx, cy = lens
    view = world_to_camera.to(means)
    x, y, depths = (means @ view[:3, :3].T + view[:3, 3]).unbind(dim=-1)
    z = torch.where(depths > NEAR, depths, torch.ones_like(depths))
    means2d = torch.stack([fx * x / z + cx - 0.5, fy * y / z + cy - 0.5], dim=-1)
    margin_x, margin_y = 0.3 * width / (2 * fx), 0.3 * height / (2 * fy)
    tx = (x / z).clamp(-cx / fx - margin_x, (width - cx) / fx + margin_x) * z
    ty = (y / z).clamp(-cy / fy - margin_y, (height - cy) / fy + margin_y) * z
    zero = torch.zeros_like(z)
    jacobian = torch.stack(
        [fx / z, zero, -fx * tx / z**2, zero, fy / z, -fy * ty / z**2], dim=-1
    ).view(-1, 2, 3)
    return means2d, depths, jacobian @ view[:3, :3]


def footprints(
    covariances: Tensor,  # [N, 2, 2]
    determinants: Tensor,  # [N]
    means2d: Tensor,  # [N, 2]
    depths: Tensor,  # [N]
    width: int,
    height: int,
) -> tuple[Tensor, Tensor]:
    """Conics [N, 3] and radii [N] of Gaussians with these covariances, still without blur."""
    a, b, c = covariances[:, 0, 0] + BLUR, covariances[:, 0, 1], covariances[:, 1, 1] + BLUR
    determinant = determinants + BLUR * (a + c - BLUR)
    # A little rounder than exact: rounded, the form of a needle could grow outwards.
    round_ = 2 * torch.finfo(a.dtype).eps * (a + c)
    conics = torch.stack([c + round_, -b, a + round_], dim=-1) / determinant[:, None]
    with torch.no_grad():
        middle = (a + c) / 2
        largest = middle + (middle**2 - determinant).clamp_min(0.1).sqrt()
        radii = (3 * largest.sqrt()).ceil()
        u, v = means2d.unbind(dim=-1)
        on_image = (u + radii >= 0) & (u - radii < width) & (v + radii >= 0) & (v - radii < height)
        radii = torch.where((depths > NEAR) & on_image, radii, torch.zeros_like(radii))
    return conics, radii.to(torch.int32)


@outside_autocast
def spherical_harmonics(
    means: Tensor,  # [N, 3]
    sh: Tensor,  # [N, K, 3]
    camera_position: Tensor,  # [3]
    degree: int,
) -> Tensor:  # [N, 3]
    """Colours seen from ``camera_position``, shifted by 0.5 and clamped at 0."""
    x, y, z = torch.nn.functional.normalize(means - camera_position.to(means), dim=-1).unbind(-1)
    basis = [torch.full_like(x, SH_0)]
    if degree > 0:
        basis += [-SH_1 * y, SH_1 * z, -SH_1 * x]
    xx, yy, zz = x * x, y * y, z * z
    if degree > 1:
        basis += [
            *(SH_2[0] * x * y, -SH_2[0] * y * z, SH_2[1] * (2 * zz - xx - yy)),
            *(-SH_2[0] * x * z, SH_2[2] * (xx - yy)),
        ]
    if degree > 2:
        basis += [
            *(-SH_3[0] * y * (3 * xx - yy), SH_3[1] * x * y * z, -SH_3[2] * y * (4 * zz - xx - yy)),
            SH_3[3] * z * (2 * zz - 3 * xx - 3 * yy),
            *(-SH_3[2] * x * (4 * zz - xx - yy), SH_3[4] * z * (xx - yy)),
            -SH_3[0] * x * (xx - 3 * yy),
        ]
    weights = torch.stack(basis, dim=-1)  # [N, K]
    return ((weights[:, :, None] * sh[:, : len(basis)]).sum(dim=1) + 0.5).clamp_min(0)


def blend_weights(
    means2d: Tensor,  # [N, 2]
    conics: Tensor,  # [N, 3]
    depths: Tensor,  # [N]
    opacities: Tensor,  # [N]
    pixels: Tensor,  # [P, 2], x then y
) -> tuple[Tensor, Tensor, Tensor]:
    """Order [M] of the Gaussians in front, their weights [M, P], and what is left [P]."""
    # A form that is not positive, as a needle's may be by rounding, has no ellipse.
    xx, xy, yy = conics.detach().unbind(dim=1)
    is_ellipse = (xx > 0) & (xx * yy > xy * xy)
    order = ((depths > NEAR) & is_ellipse).nonzero()[:, 0]
    order = order[torch.argsort(depths[order].detach(), dim=0, stable=True)]
    dx, dy = (means2d[order, None] - pixels).unbind(dim=-1)
    xx, xy, yy = conics[order, :, None].unbind(dim=1)
    power = -0.5 * (xx * dx * dx + yy * dy * dy) - xy * dx * dy
    alpha = (opacities[order, None] * power.exp()).clamp_max(MAX_ALPHA)
    alpha = torch.where(alpha.detach() < MIN_ALPHA, torch.zeros_like(alpha), alpha)
    # Once transmittance would fall below the limit it stays below: the pixel is finished.
    alive = torch.cumprod(1 - alpha, dim=0).detach() >= MIN_TRANSMITTANCE
    alpha = torch.where(alive, alpha, torch.zeros_like(alpha))
    after = torch.cat([means2d.new_ones(1, len(pixels)), torch.cumprod(1 - alpha, dim=0)])
    return order, alpha * after[:-1], after[-1]


def pixel_blocks(height: int, width: int, count: int, like: Tensor) -> tuple[Tensor, ...]:
    """The image's pixels [P, 2] row by row, in blocks that N Gaussians can meet in memory."""
    rows, columns = torch.meshgrid(
        torch.arange(height, dtype=like.dtype, device=like.device),
        torch.arange(width, dtype=like.dtype, device=like.device),
        indexing="ij",
    )
    pixels = torch.stack([columns, rows], dim=-1).view(-1, 2)
    return pixels.split(max(1, BLEND_BLOCK // max(1, count)))


@outside_autocast
def rasterize(
    means2d: Tensor,  # [N, 2]
    conics: Tensor,  # [N, 3]
    depths: Tensor,  # [N]
    opacities: Tensor,  # [N]
    values: Tensor,  # [N, C]
    height: int,
    width: int,
) -> tuple[Tensor, Tensor]:  # [C, H, W], [H, W]
    """Composites values front to back; returns the transmittance, too."""

    def composite(
        means2d: Tensor, conics: Tensor, opacities: Tensor, values: Tensor, pixels: Tensor
    ) -> tuple[Tensor, Tensor]:
        order, weights, left = blend_weights(means2d, conics, depths, opacities, pixels)
        return values[order].T @ weights, left

    # Blocks are computed again for the gradient: together they would not fit into memory.
    blocks = [
        checkpoint(composite, means2d, conics, opacities, values, pixels, use_reentrant=False)
        for pixels in pixel_blocks(height, width, len(means2d), means2d)
    ]
    image = torch.cat([block for block, _ in blocks], dim=1)
    left = torch.cat([block for _, block in blocks])
    return image.view(-1, height, width), left.view(height, width)


@outside_autocast
def blend_matrix(
    means2d: Tensor,  # [N, 2]
    conics: Tensor,  # [N, 3]
    depths: Tensor,  # [N]
    opacities: Tensor,  # [N]
    height: int,
    width: int,
) -> tuple[Tensor, ...]:
    """The tensors of a ``BlendMatrix``, in its order."""
    places, splats, parts, left = [], [], [], []
    for pixels in pixel_blocks(height, width, len(means2d), means2d):
        order, weights, remaining = blend_weights(means2d, conics, depths, opacities, pixels)
        rank, column = weights.nonzero(as_tuple=True)
        places.append(pixels[column].long())
        splats.append(torch.stack([rank, order[rank]], dim=1))
        parts.append(weights[rank, column])
        left.append(remaining)
    (x, y), (rank, gaussian) = torch.cat(places).T, torch.cat(splats).T
    weights = torch.cat(parts)
    tiles_x, tiles_y = -(-width // TILE), -(-height // TILE)
    group_key = (y // TILE * tiles_x + x // TILE) * (len(means2d) + 1) + rank
    row_key = group_key * TILE + y % TILE
    order = torch.argsort(row_key * TILE + x % TILE, dim=0)

    row_keys, row_of_weight = row_key[order].unique_consecutive(return_inverse=True)
    masks = torch.zeros_like(row_keys).index_add_(0, row_of_weight, 1 << x[order] % TILE)
    group_keys, group_sizes = (row_keys // TILE).unique_consecutive(return_counts=True)
    groups = torch.searchsorted(group_keys, group_key[order])
    tiles = torch.arange(tiles_x * tiles_y + 1, device=x.device) * (len(means2d) + 1)
    return (
        torch.searchsorted(group_keys, tiles),
        torch.searchsorted(group_key[order], tiles),
        gaussian.new_empty(len(group_keys)).scatter_(0, groups, gaussian[order]).to(torch.int32),
        torch.nn.functional.pad(group_sizes.cumsum(dim=0), (1, 0)).to(torch.int32),
        (masks | row_keys % TILE << 16).to(torch.int32),
        weights[order],
        torch.cat(left).view(height, width),
    )


def blend_pairs(
    tile_groups: Tensor,  # [tiles + 1]
    tile_weights: Tensor,  # [tiles + 1]
    gaussians: Tensor,  # [groups]
    group_rows: Tensor,  # [groups + 1]
    rows: Tensor,  # [rows]
    width: int,
) -> tuple[Tensor, Tensor]:
    """The image's pixel and the Gaussian of each weight of a ``BlendMatrix``."""
    tiles_x = -(-width // TILE)
    bits = rows[:, None] >> torch.arange(TILE, device=rows.device) & 1
    row, x = bits.nonzero(as_tuple=True)
    group = torch.arange(len(gaussians), device=rows.device).repeat_interleave(group_rows.diff())[
        row
    ]
    tile = torch.repeat_interleave(tile_weights.diff())
    y = tile // tiles_x * TILE + (rows[row] >> 16)
    return y * width + tile % tiles_x * TILE + x, gaussians[group].long()


def blend_product(
    values: Tensor,  # [N, C]
    tile_groups: Tensor,
    tile_weights: Tensor,
    gaussians: Tensor,
    group_rows: Tensor,
    rows: Tensor,
    weights: Tensor,
    height: int,
    width: int,
) -> Tensor:  # [C, H, W]
    """Image of values, blended by the tensors of a ``BlendMatrix``."""
    pixel, gaussian = blend_pairs(tile_groups, tile_weights, gaussians, group_rows, rows, width)
    image = values.new_zeros(height * width, values.shape[1])
    image.index_add_(0, pixel, weights[:, None] * values[gaussian])
    return image.T.reshape(-1, height, width).contiguous()


def blend_transposed_product(
    image: Tensor,  # [C, H, W]
    tile_groups: Tensor,
    tile_weights: Tensor,
    gaussians: Tensor,
    group_rows: Tensor,
    rows: Tensor,
    weights: Tensor,
    count: int,
) -> Tensor:  # [N, C]
    """Sums of an image's pixels over each Gaussian, by the tensors of a ``BlendMatrix``."""
    channels, _, width = image.shape
    pixel, gaussian = blend_pairs(tile_groups, tile_weights, gaussians, group_rows, rows, width)
    values = image.new_zeros(count, channels)
    return values.index_add_(0, gaussian, weights[:, None] * image.flatten(1).T[pixel])


def knn(
    queries: Tensor,  # [M, 3]
    points: Tensor,  # [N, 3]
    k: int,
) -> tuple[Tensor, Tensor]:
    """Squared distances [M, K], nearest first, and indices [M, K] of the nearest points."""
    if not (queries.isfinite().all() and points.isfinite().all()):
        raise ValueError("queries and points must be finite")
    blocks = queries.split(max(1, KNN_BLOCK // max(1, len(points))))
    nearest = [
        torch.sort((block[:, None] - points).square().sum(dim=2), dim=1, stable=True)
        for block in blocks
    ]
    squared_distances = torch.cat([distances[:, :k] for distances, _ in nearest])
    return squared_distances, torch.cat([indices[:, :k] for _, indices in nearest])
