"""Over-segmentation of scanned surfaces: of meshes, and of points alone.

On the CPU for tensors of any device: what joins depends on all that has joined before.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from detailbase.ops import reference_superpoints
from refer3d.native import check_real, check_same, check_shape, fill, operator

COLOR_WEIGHT = 0.35
"""Distance of features between colours that differ by 1 in a channel; a right angle's is 1. Chosen,
as the numbers of :func:`cloud_superpoints`, on three training scans of a stand-in for ScanNet."""


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
    _check("vertices", vertices, k, "k")
    check_shape("faces", faces, (None, 3))
    _check_int64("faces", faces, vertices)
    if rule not in ("area", "scannet"):
        raise ValueError(f"rule must be 'area' or 'scannet', got {rule!r}")
    labels = _mesh_superpoints(vertices.cpu(), faces.cpu(), k, min_vertices, rule == "scannet")
    return labels.to(vertices.device)


def cloud_superpoints(
    points: Tensor,  # [N, 3]
    colors: Tensor | None = None,  # [N, 3]
    scale: float = 0.005,
    min_points: int = 10,
    neighbours: int = 12,
) -> Tensor:  # [N]
    """Cuts a cloud without faces into pieces of one direction and colour.

    Greedy minimisation of Mumford and Shah's energy by mergers (Koepfler, Lopez and Morel 1994) on
    the graph of nearest points: the integral over the surface of the squared distance between a
    point's features and their mean in its piece, plus ``scale`` times the length of all borders.
    The features are the products of the normal's entries, in which a right angle is the distance 1
    and a normal's sign does not count, and the colour. Mergers look at means of whole pieces, and
    points weigh the area around them, so noise, density and turns change little.

    Args:
        points: float32 or float64, in metres; finite.
        colors: -1 to 1, of the same dtype; finite. The default is one colour.
        scale: Metres; the larger, the larger the pieces. Two parts at a right angle stay apart if
            the smaller has more than twice this area per length of their border.
        min_points: Smaller pieces are joined to a neighbour.
        neighbours: Number of nearest points that make a plane, the point itself counted; more
            round off more corners.

    Returns:
        [N] int64, each point's piece, numbered from 0 in the order of their first points.

    Raises:
        ValueError: If a shape, dtype, device or number does not fit, or a value is not finite.
    """
    _check("points", points, scale, "scale")
    if neighbours < 2:
        raise ValueError(f"neighbours must be at least 2, got {neighbours}")
    if colors is None:
        colors = torch.zeros_like(points)
    check_shape("colors", colors, tuple(points.shape))
    check_same("colors", colors, "points", points)
    neighbours = min(neighbours, len(points))
    features = COLOR_WEIGHT * colors.cpu()
    return _cloud_superpoints(points.cpu(), features, neighbours, scale, min_points).to(
        points.device
    )


def graph_superpoints(
    points: Tensor,  # [N, 3]
    normals: Tensor,  # [N, 3]
    edges: Tensor,  # [E, 2]
    k: float = 0.01,
    min_points: int = 20,
) -> Tensor:  # [N]
    """Cuts points with normals and edges into smooth pieces.

    :func:`mesh_superpoints` by the rule of ScanNet's program, in float32, with normals and edges
    that are given: of a mesh, or of the nearest points.

    Args:
        points: float32 or float64; finite.
        normals: Of the same dtype; finite.
        edges: int64, the two points of each; the order decides which of equal weight comes first.
        k: The larger, the larger the pieces.
        min_points: Smaller pieces are joined to a neighbour. A point without any stays alone.

    Returns:
        [N] int64, each point's piece, numbered from 0 in the order of their first points.

    Raises:
        ValueError: If a shape, dtype or device does not fit, a value is not finite, or an edge
            names a point that does not exist.
    """
    _check("points", points, k, "k")
    check_shape("normals", normals, tuple(points.shape))
    check_same("normals", normals, "points", points)
    check_shape("edges", edges, (None, 2))
    _check_int64("edges", edges, points)
    inputs = (points.cpu(), normals.cpu(), edges.cpu())
    return _graph_superpoints(*inputs, k, min_points).to(points.device)


def _check_int64(name: str, rows: Tensor, points: Tensor) -> None:
    if rows.dtype != torch.int64 or rows.device != points.device:
        raise ValueError(
            f"{name} must be int64 on {points.device}, got {str(rows.dtype)[6:]} on {rows.device}"
        )


def _check(name: str, points: Tensor, size: float, size_name: str) -> None:
    check_shape(name, points, (None, 3))
    check_real(name, points)
    if not size >= 0:
        raise ValueError(f"{size_name} must not be negative, got {size}")


@operator("detailbase::mesh_superpoints", reference=reference_superpoints.mesh_superpoints)
def _mesh_superpoints(
    vertices: Tensor, faces: Tensor, k: float, min_vertices: int, as_scannet: bool
) -> Tensor:
    return vertices.new_empty(vertices.shape[0], dtype=torch.int64)


@_mesh_superpoints.cpu
def _(native: Any, *inputs: Any) -> Tensor:
    return fill(native.mesh_superpoints, inputs, _mesh_superpoints.empty(*inputs))


@operator("detailbase::graph_superpoints", reference=reference_superpoints.graph_superpoints)
def _graph_superpoints(
    points: Tensor, normals: Tensor, edges: Tensor, k: float, min_points: int
) -> Tensor:
    return points.new_empty(points.shape[0], dtype=torch.int64)


@_graph_superpoints.cpu
def _(native: Any, *inputs: Any) -> Tensor:
    return fill(native.graph_superpoints, inputs, _graph_superpoints.empty(*inputs))


@operator("detailbase::cloud_superpoints", reference=reference_superpoints.cloud_superpoints)
def _cloud_superpoints(
    points: Tensor, colors: Tensor, neighbours: int, scale: float, min_points: int
) -> Tensor:
    return points.new_empty(points.shape[0], dtype=torch.int64)


@_cloud_superpoints.cpu
def _(native: Any, *inputs: Any) -> Tensor:
    return fill(native.cloud_superpoints, inputs, _cloud_superpoints.empty(*inputs))
