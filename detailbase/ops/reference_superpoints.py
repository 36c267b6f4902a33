"""Superpoints of meshes and clouds in plain Python: the specification of the compiled ops."""

from __future__ import annotations

import heapq
import math

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

RESOLUTION = 2.0**-30
"""Below this angles and slopes are rounding errors, and must not order edges."""
FLATNESS = 1e-9
"""Points whose two smallest spreads differ by less, as part of the largest, lie in no plane."""
NEAR = 9
"""Number of nearest points, itself included, that share a border with a point."""
SHARE = 0.414
"""Length of border that an edge crosses, as a share of a point's side."""
SPARSE = 9
"""Largest area of a point, in median areas, and the inverse of the least one."""
SLACK = 1.05
"""Costs that differ by no more count as the same."""


def mesh_superpoints(
    vertices: Tensor,  # [N, 3]
    faces: Tensor,  # [F, 3]
    k: float,
    min_vertices: int,
    as_scannet: bool = False,
) -> Tensor:  # [N]
    """Felzenszwalb and Huttenlocher's segments of a mesh, numbered by their first vertices."""
    _check_finite("vertices", vertices)
    count = len(vertices)
    _check_rows("face", faces, count)
    if as_scannet:
        return _join(*_scannet_edges(vertices.float(), faces), count, k, min_vertices)
    points = vertices.double()
    a, b, c = points[faces].unbind(dim=1)
    areas = torch.linalg.cross(b - a, c - a)[:, None].expand(-1, 3, -1)  # [F, 3, 3]
    normals = torch.zeros_like(points).index_add(0, faces.flatten(), areas.reshape(-1, 3))
    normals = normals / _length(normals)

    sides = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    start, end = _distinct(sides)
    bend = _rounded(1 - (normals[start] * normals[end]).sum(dim=1))
    way = points[end] - points[start]
    is_convex = (normals[end] * way).sum(dim=1) > RESOLUTION * way.norm(dim=1)
    weights = bend.square().where(is_convex, bend)
    return _join(start, end, weights, count, k, min_vertices)


def graph_superpoints(
    points: Tensor,  # [N, 3]
    normals: Tensor,  # [N, 3]
    edges: Tensor,  # [E, 2]
    k: float,
    min_points: int,
) -> Tensor:  # [N]
    """The same segments of points whose normals and edges are given, in float32."""
    _check_finite("points", points)
    _check_finite("normals", normals)
    _check_rows("edge", edges, len(points))
    start, end = edges.unbind(dim=1)
    weights = _scannet_weights(points.float(), normals.float(), start, end)
    return _join(start, end, weights, len(points), k, min_points)


def cloud_superpoints(
    points: Tensor,  # [N, 3]
    colors: Tensor,  # [N, 3]
    neighbours: int,
    scale: float,
    min_points: int,
) -> Tensor:  # [N]
    """Pieces of a cloud by mergers of regions; costs are brought up to date at their turn."""
    _check_finite("points", points)
    _check_finite("colors", colors)
    count, points = len(points), points.double()
    if count < 2:
        return torch.zeros(count, dtype=torch.int64, device=points.device)
    squares, nearest = _nearest(points, neighbours)
    around = points[nearest] - points[:, None]
    around = around - around.mean(dim=1, keepdim=True)
    spread, axes = torch.linalg.eigh(around.mT @ around)  # least first
    is_flat = spread[:, 1] - spread[:, 0] > FLATNESS * spread[:, 2]
    normals = axes[:, :, 0].where(is_flat[:, None], 0)
    products = (normals[:, :, None] * normals[:, None]).flatten(start_dim=1) * 0.5**0.5
    features = torch.cat([products, colors.double()], dim=1)

    near = min(neighbours, NEAR)
    areas = math.pi * squares[:, near - 1] / (near - 1)
    median = areas.sort(dim=0).values[count // 2]
    areas = areas.clamp(median / SPARSE, median * SPARSE)
    if not median:
        areas = torch.ones_like(areas)
    row = torch.arange(count, device=points.device).repeat_interleave(near)
    start, end = _distinct(torch.stack([row, nearest[:, :near].flatten()], dim=1))
    side = (areas[start] * areas[end]).sqrt().sqrt()
    way = (points[start] - points[end]).norm(dim=1)
    lengths = SHARE * side * (side / way.maximum(side * 1e-3)).clamp(max=1)
    borders = dict(
        zip(zip(start.tolist(), end.tolist(), strict=True), lengths.tolist(), strict=True)
    )
    return points.new_tensor(
        _merge(features.cpu().numpy(), areas.tolist(), borders, scale, min_points),
        dtype=torch.int64,
    )


def _nearest(points: Tensor, count: int) -> tuple[Tensor, Tensor]:  # [N, 3] -> [N, K], [N, K]
    """Squared distances to the nearest points, itself first; of equal ones the lower number."""
    places = points.cpu().numpy()
    tree, wide = KDTree(places), min(count + 4, len(places))
    while True:
        distances, numbers = tree.query(places, wide)
        bound = distances[:, min(count, wide) - 1] * (1 + 1e-9)
        if wide == len(places) or (distances[:, -1] > bound).all():
            break
        wide = min(2 * wide, len(places))  # equal distances go on
    nearest = torch.from_numpy(np.sort(numbers, axis=1)).to(points.device)
    squares = (points[nearest] - points[:, None]).square().sum(dim=2)
    squares, order = squares.sort(dim=1, stable=True)
    return squares[:, :count], nearest.gather(1, order)[:, :count]


def _merge(
    features: np.ndarray,  # [N, C]
    areas: list[float],
    borders: dict[tuple[int, int], float],
    scale: float,
    least: int,
) -> list[int]:
    """Removes the cheapest border as long as it costs at most ``scale`` or a region is small."""
    count = len(areas)
    sums = [feature * area for feature, area in zip(features, areas, strict=True)]
    region, sizes, ages = list(range(count)), [1] * count, [0] * count
    numbers = {ends: number for number, ends in enumerate(borders)}
    ends_of, lengths = list(borders), list(borders.values())
    of: list[list[int]] = [[] for _ in range(count)]
    for ends, number in numbers.items():
        for end in ends:
            of[end].append(number)
    costs, checked = [0.0] * len(lengths), [0] * len(lengths)
    queue: list[tuple[float, int]] = []

    def update(border: int) -> None:
        a, b = (find(end) for end in ends_of[border])
        step = sums[a] / areas[a] - sums[b] / areas[b]
        weight = areas[a] * areas[b] / (areas[a] + areas[b])
        costs[border] = weight * float(step @ step) / lengths[border]
        checked[border] = ages[a] + ages[b]
        heapq.heappush(queue, (costs[border], border))

    def find(vertex: int) -> int:
        while region[vertex] != vertex:
            vertex = region[vertex]
        return vertex

    for border in range(len(lengths)):
        update(border)
    while queue:
        known, border = heapq.heappop(queue)
        if not lengths[border] or known != costs[border]:
            continue
        a, b = (find(end) for end in ends_of[border])
        if known > scale and min(sizes[a], sizes[b]) >= least:
            continue
        if checked[border] != ages[a] + ages[b]:
            update(border)
            if costs[border] > known * SLACK:
                continue
        if len(of[a]) < len(of[b]):
            a, b = b, a
        region[b] = a
        areas[a], sizes[a], ages[a] = (
            areas[a] + areas[b],
            sizes[a] + sizes[b],
            ages[a] + ages[b] + 1,
        )
        sums[a] = sums[a] + sums[b]
        lengths[border] = 0.0
        for moved in of[b]:
            if not lengths[moved]:
                continue
            one, other = sorted(find(end) for end in ends_of[moved])
            present = numbers.get((one, other), moved)
            if present == moved or not lengths[present]:
                numbers[one, other] = present = moved
                of[a].append(moved)
            else:
                lengths[present] += lengths[moved]
                lengths[moved] = 0.0
            update(present)
    names: dict[int, int] = {}
    return [names.setdefault(find(vertex), len(names)) for vertex in range(count)]


def _check_finite(name: str, points: Tensor) -> None:
    if len(infinite := (~points.isfinite().all(dim=1)).nonzero()):
        raise ValueError(f"{name} must be finite, row {int(infinite[0])} is not")


def _check_rows(row: str, rows: Tensor, count: int) -> None:
    if len(wrong := ((rows < 0) | (rows >= count)).nonzero()):
        number, corner = wrong[0].tolist()
        raise ValueError(
            f"{row}s must name vertices in 0..{count - 1}, {row} {number} names "
            f"{int(rows[number, corner])}"
        )


def _length(vectors: Tensor) -> Tensor:  # [N, 3] -> [N, 1]
    """To divide by: 1 where it is 0. Its rounding, which segments show, is everywhere the same."""
    x, y, z = vectors.square().split(1, dim=1)
    length = (x + y + z).double().sqrt().to(vectors.dtype)  # PyTorch's float32 root is not exact
    return length.where(length > 0, 1)


def _dot(one: Tensor, other: Tensor) -> Tensor:  # [N, 3], [N, 3] -> [N]
    x, y, z = (one * other).unbind(dim=1)
    return x + y + z


def _rounded(bend: Tensor) -> Tensor:
    return (bend / RESOLUTION).round().clamp(min=0) * RESOLUTION


def _distinct(edges: Tensor) -> tuple[Tensor, Tensor]:  # [E, 2] -> [E'], [E']
    """Each edge once, the lower vertex first, sorted; none from a vertex to itself."""
    edges = torch.unique(edges.sort(dim=1).values, dim=0)
    start, end = edges[edges[:, 0] != edges[:, 1]].unbind(dim=1)
    return start, end


def _scannet_edges(
    points: Tensor,  # [N, 3]
    faces: Tensor,  # [F, 3]
) -> tuple[Tensor, Tensor, Tensor]:
    """Starts, ends and weights of edges as ScanNet's program computes them, in float32."""
    a, b, c = points[faces].unbind(dim=1)
    one, other = b - a, c - a
    cross = one.roll(-1, 1) * other.roll(-2, 1) - one.roll(-2, 1) * other.roll(-1, 1)
    unit = cross / _length(cross)
    has_area = _dot(unit, unit) > 0
    corners = faces[has_area].flatten()
    units = unit[has_area].repeat_interleave(3, dim=0)
    # A vertex's mean runs over its faces in their order: first everyone's first, then the second.
    order = corners.argsort(dim=0, stable=True)
    counts = corners.bincount(minlength=len(points))
    turn = torch.empty_like(corners)
    turn[order] = (
        torch.arange(len(corners), device=corners.device)
        - ((counts.cumsum(dim=0) - counts)[corners[order]])
    )
    normals = torch.zeros_like(points)
    for i in range(int(counts.max()) if len(corners) else 0):
        chosen = turn == i
        at = corners[chosen]
        share = 1 / (torch.ones_like(points[at, :1]) + i)
        normals[at] = share * units[chosen] + (1 - share) * normals[at]

    start, end = faces[:, [0, 0, 2]].flatten(), faces[:, [1, 2, 1]].flatten()
    return start, end, _scannet_weights(points, normals, start, end)


def _scannet_weights(
    points: Tensor,  # [N, 3]
    normals: Tensor,  # [N, 3]
    start: Tensor,  # [E]
    end: Tensor,  # [E]
) -> Tensor:  # [E]
    way = points[end] - points[start]
    bend = 1 - _dot(normals[start], normals[end])
    is_convex = _dot(normals[end], way / _length(way)) > 0
    return bend.square().where(is_convex, bend)


def _join(
    start: Tensor,  # [E]
    end: Tensor,  # [E]
    weights: Tensor,  # [E]
    count: int,
    k: float,
    least: int,
) -> Tensor:  # [N]
    """Each vertex's segment. The limits are computed in the weights' dtype."""
    order = weights.argsort(dim=0, stable=True)
    starts, ends = start[order].tolist(), end[order].tolist()
    heaviness = weights[order].cpu().numpy()
    number = heaviness.dtype.type
    k = number(k)
    parent, sizes, limits = list(range(count)), [1] * count, [k] * count

    def find(vertex: int) -> int:
        while parent[vertex] != vertex:
            parent[vertex] = parent[parent[vertex]]
            vertex = parent[vertex]
        return vertex

    def join(a: int, b: int, weight: np.floating) -> None:
        large, small = (b, a) if sizes[a] < sizes[b] else (a, b)
        parent[small] = large
        sizes[large] += sizes[small]
        limits[large] = weight + k / number(sizes[large])

    for one, other, weight in zip(starts, ends, heaviness, strict=True):
        a, b = find(one), find(other)
        if a != b and weight <= min(limits[a], limits[b]):
            join(a, b, weight)
    for one, other in zip(starts, ends, strict=True):
        a, b = find(one), find(other)
        if a != b and min(sizes[a], sizes[b]) < least:
            join(a, b, number(0))
    names: dict[int, int] = {}
    labels = [names.setdefault(find(vertex), len(names)) for vertex in range(count)]
    return start.new_tensor(labels)
