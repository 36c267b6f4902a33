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

// rows [blocks, volume, block]: the rows of other voxels that each of the voxels [M, 4] meets under
// each offset of a kernel, -1 where there is none. rule [5, 3]: the kernel's sizes, and multiple,
// shift, step and divisor along each axis: under offset k, place p meets place (multiple p + shift
// + step k) / divisor, where that is whole. sorted [M']: the others' keys, counted from the origin;
// order [M']: whose they are.
extern "C" __global__ void find_neighbours(const INT* voxels, int64_t count, int64_t first_scene,
                                           int64_t origin_x, int64_t origin_y, int64_t origin_z,
                                           int64_t axis_bits, const int64_t* sorted,
                                           const int64_t* order, int64_t others,
                                           const int64_t* rule, int64_t block, int64_t volume,
                                           int64_t size, int32_t* rows) {
  const int64_t i = global_thread();
  if (i >= size) return;
  const int64_t row = i / (volume * block) * block + i % block;
  rows[i] = -1;
  if (row >= count) return;
  const INT* const at = voxels + 4 * row;
  const int64_t origin[3] = {origin_x, origin_y, origin_z}, limit = int64_t(1) << axis_bits;
  int64_t offset = i / block % volume, place[3];
  for (int axis = 2; axis >= 0; --axis) {
    const int64_t kernel = rule[axis], divisor = rule[12 + axis], k = offset % kernel;
    const int64_t met = rule[3 + axis] * at[axis + 1] + rule[6 + axis] + rule[9 + axis] * k;
    offset /= kernel;
    if (met % divisor != 0) return;
    place[axis] = met / divisor - origin[axis];
    if (place[axis] < 0 || place[axis] >= limit) return;
  }
  const int64_t scene = at[0] - first_scene;
  const int64_t key = voxel_key(scene, place[0], place[1], place[2], axis_bits);
  const int64_t found = find(sorted, others, key);
  if (found >= 0) rows[i] = int32_t(order[found]);
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
