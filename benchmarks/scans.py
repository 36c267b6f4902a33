"""Scans in ScanNet's layout, as the benchmarks read and refine them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from plyfile import PlyData
from torch import Tensor


def read_mesh(scan: Path) -> tuple[Tensor, Tensor]:
    """Vertices [N, 3] float32 and triangles [F, 3] int64 of a scan's folder."""
    mesh = PlyData.read(scan / f"{scan.name}_vh_clean_2.ply")
    vertices = torch.from_numpy(np.stack([mesh["vertex"][axis] for axis in "xyz"], axis=1))
    return vertices, torch.from_numpy(np.stack(mesh["face"]["vertex_indices"]).astype(np.int64))


def read_segments(scan: Path) -> Tensor:
    """Each vertex's segment [N] in the scan's own file."""
    path = scan / f"{scan.name}_vh_clean_2.0.010000.segs.json"
    return torch.tensor(json.loads(path.read_text())["segIndices"])


def refined(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:  # [N, 3], [F, 3]
    """The mesh with each triangle cut into four."""
    sides = torch.stack([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges, middle = torch.unique(sides.sort(dim=2).values.view(-1, 2), dim=0, return_inverse=True)
    a, b, c = faces.T
    ab, bc, ca = len(vertices) + middle.view(3, -1)
    corners = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    faces = torch.cat([torch.stack(corner, dim=1) for corner in corners])
    return torch.cat([vertices, vertices[edges].mean(dim=1)]), faces
