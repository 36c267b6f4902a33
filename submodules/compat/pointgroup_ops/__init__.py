"""``import pointgroup_ops``: voxelisation as PointGroup's family of code calls it, on CPUs too."""

from pointgroup_ops.functions import Voxelization, Voxelization_Idx, voxelization, voxelization_idx

__all__ = ["Voxelization", "Voxelization_Idx", "voxelization", "voxelization_idx"]
