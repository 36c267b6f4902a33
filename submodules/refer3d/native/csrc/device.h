// Operations of a warp and a block. Included first by every kernel file.
#pragma once
#include "hardware.h"

namespace refer {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

__device__ inline int64_t global_thread() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

__device__ inline int lane_of_thread() { return static_cast<int>(threadIdx.x) % kWarp; }
__device__ inline int warp_of_thread() { return static_cast<int>(threadIdx.x) / kWarp; }

// The sum of the warp's values, in all lanes.
template <typename T>
__device__ T warp_sum(T value) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) value += __shfl_xor_sync(kAllLanes, value, step);
  return value;
}

// The sum of the values of the lanes up to this one.
template <typename T>
__device__ T warp_scan(T value) {
#pragma unroll
  for (int step = 1; step < kWarp; step *= 2) {
    const T before = __shfl_up_sync(kAllLanes, value, step);
    if (lane_of_thread() >= step) value += before;
  }
  return value;
}

// Sums of the block's values before each thread, and of all of them. Called by the whole block,
// which has as many warps as there are totals.
template <int kWarps>
__device__ int64_t block_scan(int64_t value, int64_t (&totals)[kWarps], int64_t& all) {
  const int64_t inside = warp_scan(value);
  if (lane_of_thread() == kWarp - 1) totals[warp_of_thread()] = inside;
  __syncthreads();
  int64_t before = 0;
  all = 0;
  for (int warp = 0; warp < kWarps; ++warp) {
    if (warp < warp_of_thread()) before += totals[warp];
    all += totals[warp];
  }
  __syncthreads();  // totals may be used again
  return before + inside - value;
}

// Size of the array that warp_sums takes for `count` numbers.
__host__ __device__ constexpr int padded(int count) {
  int size = 1;
  while (size < count) size *= 2;
  return size;
}

// Sums kSize <= 32 numbers over the warp, kSize a power of two: each step halves what a lane still
// keeps, so it takes about kSize exchanges, not 5 kSize. A lane's number is lane / (32 / kSize),
// and its sum is in values[0]. Steps are written out, so that all numbers stay in registers.
template <int kSize, int kLanes = kWarp / 2, typename T>
__device__ void warp_sums(T* values) {
  if constexpr (kSize > 1) {
    constexpr int kHalf = kSize / 2;
    const bool upper = lane_of_thread() & kLanes;
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
      const T given = upper ? values[i] : values[i + kHalf];
      const T kept = upper ? values[i + kHalf] : values[i];
      values[i] = kept + __shfl_xor_sync(kAllLanes, given, kLanes);
    }
    warp_sums<kHalf, kLanes / 2>(values);
  } else if constexpr (kLanes > 0) {
    values[0] += __shfl_xor_sync(kAllLanes, values[0], kLanes);
    warp_sums<1, kLanes / 2>(values);
  }
}

}  // namespace refer
