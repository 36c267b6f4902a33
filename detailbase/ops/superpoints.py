"""Over-segmentation of scanned surfaces: of meshes, and of points alone.

On the CPU for tensors of any device: what joins depends on all that has joined before.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from detailbase.ops import reference
from refer3d.native import check_real, check_shape, fill, operator


def mesh_superpoints(
    vertices: Tensor,  # [N, 3]
    faces: Tensor,  # [F, 3]
    k: float = 0.01,
    min_vertices: int = 20,
    rule: Literal["area", "scannet"] = "area",
) -> Tensor:  # [N]
    """Cuts a mesh into pieces that are smooth inside.

    Felzenszwalb and Huttenlocher's segmentation of the mesh's edges, as ScanNet's superpoints are
    made: an edge weighs 1 - cos of the angle between its vertices' normals, squared where the
    surface is convex. Where borders run is sensitive to the last digit of a coordinate.

    Args:
        vertices: float32 or float64; finite.
        faces: int64, each triangle's vertices.
        k: The larger, the larger the pieces.
        min_vertices: Smaller pieces are joined to a neighbour. A vertex without any stays alone.
        rule: ``"area"`` weighs the faces' normals by their areas and takes each edge once, those of
            equal weight in the order of their vertices' numbers. ``"scannet"`` repeats ScanNet's
            own program, rounding included, for networks that were trained on its superpoints: a
            vertex's normal is the mean of its faces' unit normals, whose length is less than 1
            where they differ, and every triangle gives three edges. It makes somewhat more pieces.

    Returns:
        [N] int64, each vertex's piece, numbered from 0 in the order of their first vertices.

    Raises:
        ValueError: If a shape, dtype, device or rule does not fit, a coordinate is not finite, or
            a face names a vertex that does not exist.
    """
    _check("vertices", vertices, k)
    check_shape("faces", faces, (None, 3))
    if faces.dtype != torch.int64 or faces.device != vertices.device:
        raise ValueError(
            f"faces must be int64 on {vertices.device}, got {str(faces.dtype)[6:]} on "
            f"{faces.device}"
        )
    if rule not in ("area", "scannet"):
        raise ValueError(f"rule must be 'area' or 'scannet', got {rule!r}")
    labels = _mesh_superpoints(vertices.cpu(), faces.cpu(), k, min_vertices, rule == "scannet")
    return labels.to(vertices.device)


def cloud_superpoints(
    points: Tensor,  # [N, 3]
    k: float = 0.01,
    min_points: int = 20,
    neighbours: int = 8,
) -> Tensor:  # [N]
    """Cuts a cloud without faces into pieces that are smooth inside.

    The segmentation of :func:`mesh_superpoints`, with edges between each point and its nearest
    ones. Its normal is that of the plane through them. Nothing says which side of it is outside,
    so angles are at most 90 degrees, and convex edges are not preferred. Points at one place stay
    together.

    Args:
        points: float32 or float64; finite.
        k: The larger, the larger the pieces.
        min_points: Smaller pieces are joined to a neighbour.
        neighbours: How many nearest points make a plane, the point itself counted; more bridge
            wider gaps and round off more corners.

    Returns:
        [N] int64, each point's piece, numbered from 0 in the order of their first points.

    Raises:
        ValueError: If a shape, dtype or number does not fit, or a coordinate is not finite.
    """
    _check("points", points, k)
    if neighbours < 1:
        raise ValueError(f"neighbours must be at least 1, got {neighbours}")
    labels = _cloud_superpoints(points.cpu(), min(neighbours, len(points)), k, min_points)
    return labels.to(points.device)


def _check(name: str, points: Tensor, k: float) -> None:
    check_shape(name, points, (None, 3))
    check_real(name, points)
    if not k >= 0:
        raise ValueError(f"k must not be negative, got {k}")


@operator("detailbase::mesh_superpoints", reference=reference.mesh_superpoints)
def _mesh_superpoints(
    vertices: Tensor, faces: Tensor, k: float, min_vertices: int, as_scannet: bool
) -> Tensor:
    return vertices.new_empty(vertices.shape[0], dtype=torch.int64)


@_mesh_superpoints.cpu
def _(native: Any, *inputs: Any) -> Tensor:
    return fill(native.mesh_superpoints, inputs, _mesh_superpoints.empty(*inputs))


@operator("detailbase::cloud_superpoints", reference=reference.cloud_superpoints)
def _cloud_superpoints(points: Tensor, neighbours: int, k: float, min_points: int) -> Tensor:
    return points.new_empty(points.shape[0], dtype=torch.int64)


@_cloud_superpoints.cpu
def _(native: Any, *inputs: Any) -> Tensor:
    return fill(native.cloud_superpoints, inputs, _cloud_superpoints.empty(*inputs))
