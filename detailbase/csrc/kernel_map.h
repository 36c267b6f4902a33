// Pairs of an input and an output voxel under the offsets of a convolution's kernel.
#pragma once

#include <cstdint>
#include <vector>

namespace refer {

// Pairs of voxels, grouped by block of `block` outputs, then by kernel offset, then by output. The
// group of block b and offset v is starts[b V + v] .. starts[b V + v + 1].
struct PairList {
  std::vector<int32_t> inputs, outputs;
  std::vector<int64_t> starts;
};

template <typename Int>
struct StridedMap {
  std::vector<Int> coarse;  // [M', 4]
  PairList down, up;        // up is down with inputs and outputs exchanged
};

// A kernel of 3 x 3 x 3 around each of M distinct voxels [M, 4] (batch, x, y, z). Offset
// 9 (dx + 1) + 3 (dy + 1) + dz + 1 pairs output p with input p + (dx, dy, dz). Voxels may come in
// any order; Morton's is the fastest.
template <typename Int>
PairList submanifold_map(const Int* voxels, int64_t count, int64_t block, int threads);

// A kernel of 2 x 2 x 2 with a stride of 2: input p belongs to output floor(p / 2), under offset
// 4 dx + 2 dy + dz with d = p mod 2. The outputs are in Morton's order. Of a grid of `shape` (x, y,
// z) voxels, outputs that reach over its end are left out, and so are the pairs with them.
template <typename Int>
StridedMap<Int> strided_map(const Int* voxels, int64_t count, const int64_t* shape, int64_t block,
                            int threads);

}  // namespace refer
