"""Native ops of detailbase: compiled for CPUs and NVIDIA GPUs, else in PyTorch."""

from detailbase.ops.kernel_map import (
    KernelMap,
    Pairs,
    kernel_map,
    output_shape,
    strided_map,
    submanifold_map,
)
from detailbase.ops.segment_reduce import segment_reduce
from detailbase.ops.sparse_conv import sparse_conv
from detailbase.ops.superpoints import cloud_superpoints, graph_superpoints, mesh_superpoints
from detailbase.ops.voxelize import voxelize

__all__ = [
    "KernelMap",
    "Pairs",
    "cloud_superpoints",
    "graph_superpoints",
    "kernel_map",
    "mesh_superpoints",
    "output_shape",
    "segment_reduce",
    "sparse_conv",
    "strided_map",
    "submanifold_map",
    "voxelize",
]
