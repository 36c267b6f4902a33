"""From lassos in views to the Gaussians that they mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import cv2
import numpy as np
import torch
from torch import Tensor

from refer3d.runs.errors import InputError
from refersplat.cameras import Camera
from refersplat.ops import knn
from refersplat.splats.formats import SH_C0
from refersplat.splats.gaussians import Gaussians
from refersplat.splats.render import project_and_blend, render
from refersplat.splats.visibility import SURFACE, share_of

Action = Literal["outline", "add", "take away"]
"""What a lasso does: ``outline`` goes around the object; the others add or take away what is
visible inside."""
ACTIONS: tuple[Action, ...] = get_args(Action)
LEAST_CORNERS = 3
LEAST_PIXELS = 0.5
"""Pixels that a Gaussian must fill for their colours to count as its own."""
MIDDLE = 0.2
"""Least depth inside all outlines of what is certainly the object's. It trades rough outlines for
exact ones: on the nine objects of a table scene, two outlines with a margin of a tenth and of a
fifth of the object gave a mean IoU of 0.88 and 0.84 with 0.15, 0.87 and 0.86 with 0.25, and of 0.88
and 0.80 without this step. At that time hidden Gaussians outside an outline were excluded."""
MARGIN = 0.15
"""Reach around the object in which paths lead, in its sizes."""
NEIGHBOURS = 9


class Lasso(NamedTuple):
    """The Gaussians inside a lasso."""

    action: Action
    inside: Tensor
    """[N] bool, True for visible Gaussians with most of their pixels inside, and for hidden ones
    with their centre inside."""
    is_visible: Tensor
    """[N] bool, True for Gaussians on the surfaces that the camera sees."""
    is_near: Tensor
    """[N] bool, True for depths around that of the surface inside, as far as the lasso is wide."""
    depth: Tensor
    """[N] distance of the centre to the lasso's border, 0 outside, 1 where it is largest."""
    colors: Tensor
    """[N, 3] sums of the colours of the pixels that each Gaussian fills, by blend weight."""
    pixels: Tensor
    """[N] pixels that it fills."""
    is_drawn: bool
    """Whether it is drawn by hand, with a margin."""

    @property
    def is_possible(self) -> Tensor:  # [N] bool
        """True for Gaussians that are inside, or hidden, at the depth of what is inside."""
        return self.is_near & (self.inside | ~self.is_visible)


@torch.no_grad()
def select_lasso(
    gaussians: Gaussians,
    camera: Camera,
    polygon: np.ndarray,  # [P, 2]
    action: Action = "outline",
) -> Lasso:
    """Finds the Gaussians inside a lasso.

    Args:
        gaussians: The N Gaussians.
        camera: The view that the lasso is drawn in.
        polygon: Corners as x, y in pixels, the image's corner at 0; it closes by itself.
        action: What the lasso does.

    Raises:
        InputError: The polygon has too few corners, or no Gaussian is visible inside.
    """
    polygon = np.asarray(polygon, dtype=np.float32).reshape(-1, 2)
    if len(polygon) < LEAST_CORNERS:
        raise InputError(
            f"lasso: expected at least {LEAST_CORNERS} corners, got {len(polygon)}; draw around the"
            " object with the button held down"
        )
    mask = np.zeros((camera.height, camera.width), np.uint8)
    cv2.fillPoly(mask, [np.floor(polygon).astype(np.int32)], 1)
    return select_mask(gaussians, camera, mask, action, is_drawn=True)


@torch.no_grad()
def select_mask(
    gaussians: Gaussians,
    camera: Camera,
    mask: np.ndarray,  # [H, W] bool
    action: Action = "outline",
    is_drawn: bool = False,
) -> Lasso:
    """Finds the Gaussians inside a mask.

    Args:
        gaussians: The N Gaussians.
        camera: The view of the mask.
        mask: What is inside.
        action: What the mask does.
        is_drawn: Whether it is drawn by hand, with a margin.

    Raises:
        InputError: No Gaussian is visible inside.
    """
    # The mask ends where the image does.
    padded = np.pad(mask.astype(np.uint8), 1)
    border = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_5)[1:-1, 1:-1]
    border = torch.from_numpy(border / max(border.max(), 1)).to(gaussians.means)
    projected, blend = project_and_blend(gaussians, camera)
    color = render(gaussians, camera).color
    values = torch.cat([(border > 0)[None].to(color), torch.ones_like(color[:1]), color])
    covered, pixels, *colors = blend.collect(values).unbind(dim=1)  # [N] each
    is_visible = share_of(gaussians, projected, pixels) >= SURFACE
    column, row = projected.means2d.round().long().unbind(dim=1)
    on_image = (projected.radii > 0) & (column >= 0) & (column < camera.width)
    on_image &= (row >= 0) & (row < camera.height)
    depth = border[row.clamp(0, camera.height - 1), column.clamp(0, camera.width - 1)] * on_image
    inside = torch.where(is_visible, covered > pixels / 2, depth > 0)
    surface = inside & is_visible
    if not surface.any():
        raise InputError("lasso: expected something visible inside, got nothing; draw around it")
    middle = projected.depths[surface].median()
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    extents = [(np.ptp(columns) + 1) / camera.fx, (np.ptp(rows) + 1) / camera.fy]
    is_near = (projected.depths - middle).abs() <= middle * float(max(extents))
    shades = torch.stack(colors, dim=1)
    return Lasso(action, inside, is_visible, is_near, depth, shades, pixels, is_drawn)


def combine(gaussians: Gaussians, lassos: Sequence[Lasso]) -> Tensor:  # [N] bool
    """The Gaussians that several lassos mean together.

    An object lies inside its outlines, as far as it is visible: a view does not tell of what is
    hidden there, unless it lies farther behind or before than the lasso is wide. What drawn
    outlines leave around the object is taken off. Additions and removals follow in their order.

    Raises:
        InputError: There is no lasso.
    """
    if not lassos:
        raise InputError("lasso: expected at least one, got none; draw around the object")
    outlines = [lasso for lasso in lassos if lasso.action == "outline"]
    selected = torch.zeros_like(lassos[0].inside)
    for lasso in outlines:
        selected |= lasso.inside
    for lasso in outlines:
        selected &= lasso.is_possible
    drawn = [lasso for lasso in outlines if lasso.is_drawn]
    if drawn and selected.any():
        selected = _tighten(gaussians, selected, drawn)
    for lasso in lassos:
        if lasso.action == "add":
            selected |= lasso.inside & lasso.is_visible
        elif lasso.action == "take away":
            selected &= ~(lasso.inside & lasso.is_visible)
    return selected


def _tighten(
    gaussians: Gaussians,
    selected: Tensor,  # [N] bool
    outlines: Sequence[Lasso],
) -> Tensor:  # [N] bool
    """Takes off the margin that a rough outline leaves around an object.

    Paths lead from Gaussian to neighbouring Gaussian and cost the change of colour and a share of
    the way. What is reached from outside at a lower cost than from the object's middle is margin.
    """
    from scipy.sparse import csr_array  # slow to import
    from scipy.sparse.csgraph import dijkstra

    depth = torch.stack([lasso.depth for lasso in outlines]).amin(dim=0)
    pixels = torch.stack([lasso.pixels for lasso in outlines]).sum(dim=0)[:, None]
    seen = torch.stack([lasso.colors for lasso in outlines]).sum(dim=0) / pixels.clamp(min=1e-6)
    colors = torch.where(pixels > LEAST_PIXELS, seen, (SH_C0 * gaussians.sh_dc[:, 0] + 0.5))
    chosen = gaussians.means[selected]
    low, high = chosen.amin(dim=0), chosen.amax(dim=0)
    size = (high - low).norm().clamp(min=1e-6)
    around = (gaussians.means > low - MARGIN * size) & (gaussians.means < high + MARGIN * size)
    rows = around.all(dim=1).nonzero()[:, 0]
    is_visible = torch.stack([lasso.is_visible for lasso in outlines]).any(dim=0)
    is_middle = selected & is_visible & (depth >= MIDDLE)
    middle = is_middle[rows].nonzero()[:, 0].tolist()
    outside = (~selected[rows]).nonzero()[:, 0].tolist()
    if not middle or not outside:
        return selected
    means, colors = gaussians.means[rows], colors[rows].clamp(0, 1)
    _, neighbours = knn(means, means, NEIGHBOURS)
    source = torch.arange(len(rows), device=rows.device).repeat_interleave(neighbours.shape[1])
    target = neighbours.flatten()
    ways = (means[source] - means[target]).norm(dim=1) / size
    costs = (colors[source] - colors[target]).norm(dim=1) + ways + 1e-6  # 0 is no edge
    edges = source.cpu().numpy(), target.cpu().numpy()
    graph = csr_array((costs.double().cpu().numpy(), edges), shape=(len(rows),) * 2)
    inner, outer = (
        dijkstra(graph, directed=False, indices=seeds, min_only=True) for seeds in (middle, outside)
    )
    result = selected.clone()
    result[rows[torch.from_numpy(outer <= inner).to(rows.device)]] = False
    return result
