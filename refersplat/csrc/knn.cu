// Exact nearest neighbours in a tree of boxes over points in Morton's order: a thread for each
// query. The tree is complete: children of node i are 2 i and 2 i + 1, the root is 1.
#include "device.h"
#include "morton.h"

#ifndef REAL
#define REAL float
#endif
#ifndef NEIGHBOURS  // how many a thread keeps in its registers; 0 for any number, in memory
#define NEIGHBOURS 4
#endif

namespace refer {

constexpr int kLeafSize = 16;
constexpr int kMaxDepth = 32;
constexpr int kLargest = 0x7fffffff;

// keys [N]: where points [N, 3] lie in their box, from low [3] on, on a grid of 2^21 places a side.
extern "C" __global__ void point_keys(const REAL* points, int64_t count, const REAL* low,
                                      const REAL* high, int64_t* keys) {
  const int64_t i = global_thread();
  if (i >= count) return;
  uint64_t at[3];
  for (int axis = 0; axis < 3; ++axis) {
    const REAL extent = high[axis] - low[axis];
    const REAL share = extent > 0 ? (points[3 * i + axis] - low[axis]) / extent : REAL(0);
    at[axis] = uint64_t(fmin(fmax(share, REAL(0)), REAL(1)) * REAL((1 << 21) - 1));
  }
  keys[i] = int64_t(morton(at[0], at[1], at[2]));
}

// Nearer, or as near with a lower index.
__device__ inline bool is_before(REAL distance, int64_t index, REAL other, int64_t other_index) {
  return distance < other || (distance == other && index < other_index);
}

// Places a candidate among the k nearest so far.
__device__ inline void insert(REAL distance, int64_t index, int k, REAL* distances,
                              int64_t* indices) {
#pragma unroll
  for (int i = k - 1; i >= 0; --i) {
    if (i > 0 && is_before(distance, index, distances[i - 1], indices[i - 1])) {
      distances[i] = distances[i - 1];
      indices[i] = indices[i - 1];
    } else if (is_before(distance, index, distances[i], indices[i])) {
      distances[i] = distance;
      indices[i] = index;
    }
  }
}

// boxes [2 leaves, 6]: low and high corners; a node's points have indices from lowest [2 leaves]
// on. rows [M]: the queries, neighbours one after another. points [N, 3] are in the tree's order,
// order [N] is whose they are.
extern "C" __global__ void search(const REAL* queries, const int64_t* rows, int64_t num_queries,
                                  const REAL* points, const int64_t* order, int64_t count,
                                  const REAL* boxes, const int64_t* lowest, int64_t leaves,
                                  int64_t k, REAL* squared_distances, int64_t* indices) {
  const int64_t thread = global_thread();
  if (thread >= num_queries) return;
  const int64_t row = rows[thread];
  const REAL x = queries[3 * row], y = queries[3 * row + 1], z = queries[3 * row + 2];
#if NEIGHBOURS
  constexpr int kKept = NEIGHBOURS;
  REAL distances[kKept];
  int64_t found[kKept];
#else
  const int kKept = int(k);
  REAL* const distances = squared_distances + row * k;
  int64_t* const found = indices + row * k;
#endif
  for (int i = 0; i < kKept; ++i) {
    distances[i] = REAL(INFINITY);
    found[i] = kLargest;
  }
  const auto accepts = [&](REAL distance, int64_t index) {
    return is_before(distance, index, distances[kKept - 1], found[kKept - 1]);
  };
  const auto box_distance = [&](int64_t node) {
    const REAL* const box = boxes + 6 * node;
    const REAL dx = fmax(fmax(box[0] - x, x - box[3]), REAL(0));
    const REAL dy = fmax(fmax(box[1] - y, y - box[4]), REAL(0));
    const REAL dz = fmax(fmax(box[2] - z, z - box[5]), REAL(0));
    return dx * dx + dy * dy + dz * dz;
  };
  int64_t waiting[kMaxDepth];
  REAL waiting_distances[kMaxDepth];
  int depth = 0;
  waiting[depth] = 1, waiting_distances[depth++] = 0;
  while (depth > 0) {
    int64_t node = waiting[--depth];
    if (!accepts(waiting_distances[depth], lowest[node])) continue;
    while (node < leaves) {
      int64_t near = 2 * node, far = near + 1;
      REAL near_distance = box_distance(near), far_distance = box_distance(far);
      if (is_before(far_distance, lowest[far], near_distance, lowest[near])) {
        near = far, far = node * 4 + 1 - near;
        const REAL distance = near_distance;
        near_distance = far_distance, far_distance = distance;
      }
      if (accepts(far_distance, lowest[far])) {
        waiting[depth] = far, waiting_distances[depth++] = far_distance;
      }
      node = near;
    }
    const int64_t first = (node - leaves) * kLeafSize;
    for (int64_t i = first; i < first + kLeafSize && i < count; ++i) {
      const REAL dx = points[3 * i] - x, dy = points[3 * i + 1] - y, dz = points[3 * i + 2] - z;
      const REAL distance = dx * dx + dy * dy + dz * dz;
      if (accepts(distance, order[i])) insert(distance, order[i], kKept, distances, found);
    }
  }
#if NEIGHBOURS
  for (int i = 0; i < kKept; ++i) {
    if (i >= k) break;
    squared_distances[row * k + i] = distances[i];
    indices[row * k + i] = found[i];
  }
#endif
}

}  // namespace refer
