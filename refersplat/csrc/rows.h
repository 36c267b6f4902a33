// Rows of a tile's pixels with the weights of a batch of Gaussians: which pixels, and where their
// weights stand behind the batch's first.
#pragma once

#include "walk.h"

namespace refer {

constexpr int kRowShift = 16;  // in a blend matrix, bits from here on are the row's place

struct Rows {
  uint16_t masks[kBatch][kTile], offsets[kBatch][kTile];
  int64_t totals[kThreads / kWarp];
};

// From the masks, the offsets. Called by the whole block; returns how many weights there are.
__device__ inline int find_offsets(Rows& rows, int count) {
  const int i = static_cast<int>(threadIdx.x);
  int own = 0;
  if (i < count) {
    for (int y = 0; y < kTile; ++y) own += __popc(rows.masks[i][y]);
  }
  int64_t all;
  int64_t next = block_scan(own, rows.totals, all);
  if (i < count) {
    for (int y = 0; y < kTile; ++y) {
      rows.offsets[i][y] = static_cast<uint16_t>(next);
      next += __popc(rows.masks[i][y]);
    }
  }
  __syncthreads();
  return static_cast<int>(all);
}

// Number of a row's weights before that of pixel x.
__device__ inline int rank(unsigned mask, int x) { return __popc(mask & ((1u << x) - 1)); }

}  // namespace refer
