#include "op.h"
#include "parallel.h"
#include "radix_sort.h"
#include "voxels.h"

namespace refer {
namespace {

// The distinct rows (batch, x, y, z) of N points, coords [N, 3] and batch [N], as voxels [M, 4] in
// Morton's order, and each point's voxel [N].
template <typename Int>
Results voxelize(Array<const Int> coords, Array<const Int> batch, int threads,
                 Array<int64_t> point_to_voxel) {
  const int64_t count = coords.shape(0);
  const Frame frame(count, [&](int64_t row, int column) -> int64_t {
    return column == 0 ? batch[row] : coords[3 * row + column - 1];
  });
  std::vector<Keyed> points(count);
  parallel_for(count, 1 << 15, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Int* at = coords + 3 * i;
      points[i] = {frame.key(batch[i], at[0], at[1], at[2]), i};
    }
  });
  radix_sort(points, frame.key_bits, threads);
  std::vector<Int> voxels;
  voxels.reserve(4 * count);
  int64_t voxel = -1;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t row = points[i].row;
    if (i == 0 || points[i].key != points[i - 1].key) {
      ++voxel;
      voxels.insert(voxels.end(),
                    {batch[row], coords[3 * row], coords[3 * row + 1], coords[3 * row + 2]});
    }
    point_to_voxel[row] = voxel;
  }
  return {result<Int>(std::move(voxels))};
}

REFER_OP(voxelize, voxelize, int32_t, int64_t)

}  // namespace
}  // namespace refer
