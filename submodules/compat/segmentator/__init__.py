"""``import segmentator``: ScanNet's over-segmentation as SPFormer's family of code calls it.

Runs on the CPU for tensors of any device.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from detailbase.ops import graph_superpoints, mesh_superpoints

__all__ = ["compute_vn", "segment_mesh", "segment_point"]


def segment_mesh(
    vertices: Tensor,  # [N, 3]
    faces: Tensor,  # [F, 3]
    kThresh: float = 0.01,
    segMinVerts: int = 20,
) -> Tensor:  # [N]
    """Superpoints of a mesh by the rule of ScanNet's program.

    Args:
        vertices: float32 or float64.
        faces: Integers.
        kThresh: The larger, the larger the segments.
        segMinVerts: Smaller segments are joined to a neighbour.

    Returns:
        [N] int64, each vertex's segment, numbered from 0 in the order of their first vertices.

    Raises:
        ValueError: If a shape, dtype or vertex does not fit.
    """
    return mesh_superpoints(vertices, faces.long(), kThresh, segMinVerts, rule="scannet")


def segment_point(
    vertices: Tensor,  # [N, 3]
    normals: Tensor,  # [N, 3]
    edges: Tensor,  # [E, 2]
    kThresh: float = 0.01,
    segMinVerts: int = 20,
) -> Tensor:  # [N]
    """Superpoints of points with normals, joined along edges; see :func:`segment_mesh`."""
    return graph_superpoints(vertices, normals, edges.long(), kThresh, segMinVerts)


def compute_vn(mesh: Any) -> np.ndarray:  # [N, 3]
    """Normals for :func:`segment_point`: the mean of a vertex's faces' unit normals.

    Args:
        mesh: A trimesh; anything with ``vertices`` [N, 3] and ``faces`` [F, 3]. Faces without an
            area do not count.
    """
    vertices, faces = torch.as_tensor(mesh.vertices), torch.as_tensor(mesh.faces).long()
    corner, one, other = vertices[faces].unbind(dim=1)
    normals = torch.linalg.cross(one - corner, other - corner)
    lengths = normals.norm(dim=1, keepdim=True)
    units = torch.cat([normals / lengths, torch.ones_like(lengths)], dim=1)
    units = units.where(lengths > 0, 0).repeat_interleave(3, dim=0)
    total = vertices.new_zeros(len(vertices), 4).index_add(0, faces.flatten(), units)
    return (total[:, :3] / total[:, 3:].clamp(min=1)).numpy()
