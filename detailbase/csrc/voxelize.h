// Points to voxels.
#pragma once

#include <cstdint>
#include <vector>

namespace refer {

// The distinct rows (batch, x, y, z) of N points, coords [N, 3] and batch [N], as voxels [M, 4] in
// Morton's order, and each point's voxel [N].
template <typename Int>
std::vector<Int> voxelize(const Int* coords, const Int* batch, int64_t count, int threads,
                          int64_t* point_to_voxel);

}  // namespace refer
