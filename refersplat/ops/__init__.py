"""Native ops of refersplat: compiled for CPUs and NVIDIA GPUs, else in PyTorch."""

from refersplat.ops.blend import BlendMatrix, blend_matrix
from refersplat.ops.knn import knn
from refersplat.ops.project import Projected, project, spherical_harmonics
from refersplat.ops.rasterize import rasterize

__all__ = [
    "BlendMatrix",
    "Projected",
    "blend_matrix",
    "knn",
    "project",
    "rasterize",
    "spherical_harmonics",
]
