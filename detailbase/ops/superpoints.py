"""Over-segmentation of scanned surfaces."""

from __future__ import annotations

import torch
from torch import Tensor

from detailbase.ops import reference
from native import as_array, check_shape, load, num_threads


def mesh_superpoints(
    vertices: Tensor,  # [N, 3]
    faces: Tensor,  # [F, 3]
    k: float = 0.01,
    min_vertices: int = 20,
) -> Tensor:  # [N]
    """Cuts a mesh into pieces that are smooth inside.

    Felzenszwalb and Huttenlocher's segmentation of the mesh's edges, as ScanNet's superpoints are
    made: an edge weighs 1 - cos of the angle between its vertices' normals, squared where the
    surface is convex. Normals are weighted by the faces' areas. Edges of equal weight, which flat
    surfaces have many of, are taken in the order of their vertices' numbers; another
    implementation's order, or its rounding, moves the borders of some segments.

    Args:
        vertices: float32 or float64; finite.
        faces: int64, each triangle's vertices.
        k: The larger, the larger the pieces.
        min_vertices: Smaller pieces are joined to a neighbour. A vertex without any stays alone.

    Returns:
        [N] int64, each vertex's piece, numbered from 0 in the order of their first vertices.

    Raises:
        ValueError: If a shape, dtype or device does not fit, a coordinate is not finite, or a face
            names a vertex that does not exist.
    """
    check_shape("vertices", vertices, (None, 3))
    check_shape("faces", faces, (None, 3))
    if not vertices.is_floating_point():
        raise ValueError(f"vertices must have a floating dtype, got {str(vertices.dtype)[6:]}")
    if faces.dtype != torch.int64 or faces.device != vertices.device:
        raise ValueError(
            f"faces must be int64 on {vertices.device}, got {str(faces.dtype)[6:]} on "
            f"{faces.device}"
        )
    if not k >= 0:
        raise ValueError(f"k must not be negative, got {k}")
    return _mesh_superpoints(vertices, faces, k, min_vertices)


@torch.library.custom_op("detailbase::mesh_superpoints", mutates_args=())
def _mesh_superpoints(vertices: Tensor, faces: Tensor, k: float, min_vertices: int) -> Tensor:
    return reference.mesh_superpoints(vertices, faces, k, min_vertices)


@_mesh_superpoints.register_kernel("cpu")
def _(vertices: Tensor, faces: Tensor, k: float, min_vertices: int) -> Tensor:
    native = load("detailbase")
    if native is None or vertices.dtype not in (torch.float32, torch.float64):
        return reference.mesh_superpoints(vertices, faces, k, min_vertices)
    labels = torch.empty(len(vertices), dtype=torch.int64)
    native.mesh_superpoints(
        as_array(vertices), as_array(faces), k, min_vertices, num_threads(), labels.numpy()
    )
    return labels


@_mesh_superpoints.register_fake
def _(vertices: Tensor, faces: Tensor, k: float, min_vertices: int) -> Tensor:
    return vertices.new_empty(vertices.shape[0], dtype=torch.int64)
