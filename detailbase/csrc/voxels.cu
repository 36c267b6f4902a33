// Voxels' keys, and tables of which voxels meet under each offset of a kernel: one thread for each
// key or place of a table, whose pairs are then written one behind the other.
#include "device.h"
#include "morton.h"

#ifndef INT
#define INT int64_t
#endif

namespace refer {

constexpr int kThreads = 256;

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

// Voxels [M, 4] by the order of their keys: whether each belongs to a voxel of twice the size that
// the grid of half_x, half_y, half_z has, and whether it is the first that does. marks [2, M].
extern "C" __global__ void mark_coarse(const INT* voxels, int64_t count, const int64_t* sorted,
                                       const int64_t* order, int64_t half_x, int64_t half_y,
                                       int64_t half_z, int64_t* marks) {
  const int64_t i = global_thread();
  if (i >= count) return;
  const INT* const at = voxels + 4 * order[i];
  const bool is_kept = at[1] >> 1 < half_x && at[2] >> 1 < half_y && at[3] >> 1 < half_z;
  const bool is_first = i == 0 || sorted[i] >> 3 != sorted[i - 1] >> 3;
  marks[i] = is_kept;
  marks[count + i] = is_kept && is_first;
}

// sums [2, M] of the marks up to each. coarse [M', 4]; the tables down [blocks', 8, block] and up
// [blocks, 8, block] hold -1 before.
extern "C" __global__ void fill_coarse(const INT* voxels, int64_t count, const int64_t* sorted,
                                       const int64_t* order, const int64_t* sums, int64_t block,
                                       INT* coarse, int32_t* down, int32_t* up) {
  const int64_t i = global_thread();
  if (i >= count) return;
  const auto is_marked = [&](const int64_t* sum) { return sum[i] != (i == 0 ? 0 : sum[i - 1]); };
  if (!is_marked(sums)) return;
  const int64_t row = order[i], parent = sums[count + i] - 1, offset = sorted[i] & 7;
  down[(parent / block * 8 + offset) * block + parent % block] = int32_t(row);
  up[(row / block * 8 + offset) * block + row % block] = int32_t(parent);
  if (!is_marked(sums + count)) return;
  const INT* const at = voxels + 4 * row;
  INT* const to = coarse + 4 * parent;
  to[0] = at[0], to[1] = at[1] >> 1, to[2] = at[2] >> 1, to[3] = at[3] >> 1;
}

// Writes the pairs of a table [groups, block], where it is not -1, from each group's start on. A
// block of threads for each group, of which there are `volume` for a block of outputs.
extern "C" __global__ void __launch_bounds__(kThreads)
    write_pairs(const int32_t* table, const int64_t* starts, int64_t volume, int64_t block,
                int32_t* inputs, int32_t* outputs) {
  __shared__ int64_t totals[kThreads / kWarp];
  const int64_t group = blockIdx.x;
  int64_t next = starts[group];
  for (int64_t first = 0; first < block; first += kThreads) {
    const int64_t i = first + threadIdx.x;
    const int32_t row = i < block ? table[group * block + i] : -1;
    int64_t all;
    const int64_t place = next + block_scan(row >= 0, totals, all);
    if (row >= 0) {
      inputs[place] = row;
      outputs[place] = int32_t(group / volume * block + i);
    }
    next += all;
  }
}

}  // namespace refer
