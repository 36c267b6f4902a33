// Included first by every kernel file: CUDA's types, for NVRTC or for the emulation on a CPU, and
// operations of a warp.
#pragma once
#ifdef REFER_EMULATED
#include "emulation.h"
#else
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
#define INFINITY __int_as_float(0x7f800000)
#endif

namespace refer {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

__device__ inline int64_t global_thread() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

__device__ inline int lane_of_thread() { return static_cast<int>(threadIdx.x) % kWarp; }
__device__ inline int warp_of_thread() { return static_cast<int>(threadIdx.x) / kWarp; }

// 2^x and x / y: for floats in one or two instructions, within two units in the last place, and 0
// instead of what is no normal number.
#ifdef REFER_EMULATED
inline float quick_exp2(float x) { return exp2(x); }
inline float quick_ratio(float x, float y) { return x / y; }
#else
__device__ inline float quick_exp2(float x) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
}
__device__ inline float quick_ratio(float x, float y) { return __fdividef(x, y); }
#endif
__device__ inline double quick_exp2(double x) { return exp2(x); }
__device__ inline double quick_ratio(double x, double y) { return x / y; }

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
