// Voxels' keys, and which voxels lie around each: one thread for each key or pair.
#include "device.h"
#include "morton.h"

#ifndef INT
#define INT int64_t
#endif

namespace refer {

// A voxel's key: Morton's, scene by scene, as a number with a sign that is ordered as without.
__device__ inline int64_t voxel_key(int64_t scene, int64_t x, int64_t y, int64_t z,
                                    int64_t axis_bits) {
  const uint64_t key = morton(x, y, z) | uint64_t(scene) << (3 * axis_bits);
  return int64_t(key ^ uint64_t(1) << 63);
}

// keys [N] of points at coords [N, 3] of the scenes batch [N], counted from the origin.
extern "C" __global__ void voxel_keys(const INT* coords, const INT* batch, int64_t count,
                                      int64_t first_scene, int64_t origin_x, int64_t origin_y,
                                      int64_t origin_z, int64_t axis_bits, int64_t* keys) {
  const int64_t i = global_thread();
  if (i >= count) return;
  const INT* const at = coords + 3 * i;
  keys[i] = voxel_key(batch[i] - first_scene, at[0] - origin_x, at[1] - origin_y, at[2] - origin_z,
                      axis_bits);
}

// The place of a key among sorted ones, or -1.
__device__ inline int64_t find(const int64_t* sorted, int64_t count, int64_t key) {
  int64_t low = 0, high = count;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (sorted[middle] < key) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low < count && sorted[low] == key ? low : -1;
}

// rows [blocks, 27, block]: the row of voxels [M, 4] at each of the 27 places around each of them,
// -1 where there is none. sorted [M]: their keys; order [M]: whose they are.
extern "C" __global__ void find_neighbours(const INT* voxels, int64_t count, int64_t first_scene,
                                           int64_t origin_x, int64_t origin_y, int64_t origin_z,
                                           int64_t axis_bits, const int64_t* sorted,
                                           const int64_t* order, int64_t block, int64_t size,
                                           int32_t* rows) {
  const int64_t i = global_thread();
  if (i >= size) return;
  const int64_t row = i / (27 * block) * block + i % block;
  const int offset = int(i / block % 27);
  rows[i] = -1;
  if (row >= count) return;
  const INT* const at = voxels + 4 * row;
  const int64_t x = at[1] - origin_x + offset / 9 - 1, y = at[2] - origin_y + offset / 3 % 3 - 1;
  const int64_t z = at[3] - origin_z + offset % 3 - 1, limit = int64_t(1) << axis_bits;
  if (x < 0 || y < 0 || z < 0 || x >= limit || y >= limit || z >= limit) return;
  const int64_t key = voxel_key(at[0] - first_scene, x, y, z, axis_bits);
  const int64_t found = find(sorted, count, key);
  if (found >= 0) rows[i] = int32_t(order[found]);
}

}  // namespace refer
