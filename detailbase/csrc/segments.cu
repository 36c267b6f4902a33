// Sums and maxima of rows that belong together: a block for each segment and 32 channels, a lane
// for each channel. A segment may be one row or the whole floor, whose rows all warps share.
#include "device.h"

#ifndef REAL
#define REAL float
#endif

namespace refer {

constexpr int kWarps = 16;

// Calls take(row) for this warp's part of a block's segment, in the rows' order. The rows' numbers
// are fetched by all lanes at once.
template <typename Take>
__device__ void for_each_row(const int64_t* order, const int64_t* starts, Take take) {
  const int64_t end = starts[blockIdx.x + 1];
  int64_t first = starts[blockIdx.x] + warp_of_thread() * kWarp;
  for (; first < end; first += kWarps * kWarp) {
    const int count = static_cast<int>(end - first < kWarp ? end - first : kWarp);
    const int64_t own = order[first + (lane_of_thread() < count ? lane_of_thread() : 0)];
#pragma unroll 8
    for (int i = 0; i < count; ++i) take(__shfl_sync(kAllLanes, own, i));
  }
}

// order [N]: the rows, segment by segment, each segment's from starts[s] on.
extern "C" __global__ void segment_sum(const REAL* values, const int64_t* order,
                                       const int64_t* starts, int64_t channels, REAL* out) {
  __shared__ REAL sums[kWarps][kWarp];
  const int64_t channel = static_cast<int64_t>(blockIdx.y) * kWarp + lane_of_thread();
  REAL sum = 0;
  for_each_row(order, starts, [&](int64_t row) {
    if (channel < channels) sum += values[row * channels + channel];
  });
  sums[warp_of_thread()][lane_of_thread()] = sum;
  __syncthreads();
  if (warp_of_thread() > 0 || channel >= channels) return;
  for (int warp = 1; warp < kWarps; ++warp) sum += sums[warp][lane_of_thread()];
  out[blockIdx.x * channels + channel] = sum;
}

struct Largest {
  REAL value;
  int64_t row;  // -1: none
};

// The first of equal values counts, a NaN before all.
__device__ Largest larger(Largest one, Largest other) {
  if (other.row < 0) return one;
  if (one.row < 0) return other;
  const bool is_nan = one.value != one.value, other_is_nan = other.value != other.value;
  const bool is_equal = is_nan ? other_is_nan : one.value == other.value;
  if (is_equal) return one.row < other.row ? one : other;
  return is_nan || (!other_is_nan && one.value > other.value) ? one : other;
}

// 0 and row -1 where there is none.
extern "C" __global__ void segment_max(const REAL* values, const int64_t* order,
                                       const int64_t* starts, int64_t channels, REAL* out,
                                       int64_t* rows) {
  __shared__ REAL best[kWarps][kWarp];
  __shared__ int64_t best_rows[kWarps][kWarp];
  const int64_t channel = static_cast<int64_t>(blockIdx.y) * kWarp + lane_of_thread();
  Largest largest{0, -1};
  for_each_row(order, starts, [&](int64_t row) {
    if (channel < channels) largest = larger(largest, {values[row * channels + channel], row});
  });
  best[warp_of_thread()][lane_of_thread()] = largest.value;
  best_rows[warp_of_thread()][lane_of_thread()] = largest.row;
  __syncthreads();
  if (warp_of_thread() > 0 || channel >= channels) return;
  for (int warp = 1; warp < kWarps; ++warp) {
    largest = larger(largest, {best[warp][lane_of_thread()], best_rows[warp][lane_of_thread()]});
  }
  out[blockIdx.x * channels + channel] = largest.value;
  rows[blockIdx.x * channels + channel] = largest.row;
}

}  // namespace refer
