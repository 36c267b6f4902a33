// Convolution over the pairs of a kernel map: a block of threads for each block of outputs and
// COLUMNS of their channels. No other block adds to them, so they are added to without atomics, in
// a fixed order.
#include "mma.h"

#ifndef REAL
#define REAL float
#endif
#ifndef PRECISION
#define PRECISION kPlain
#endif
// What features, gradients and weights are stored as.
#ifdef HALF
#define FEATURE uint16_t
#else
#define FEATURE REAL
#endif
#ifndef COLUMNS
#define COLUMNS 64
#endif

namespace refer {

constexpr int kThreads = 256;
constexpr int kRows = 16 * kThreads / kWarp;         // pairs at once, 16 for each warp
constexpr int kDepth = sizeof(REAL) == 8 ? 16 : 32;  // channels, or pairs, at once
constexpr int kTiles = COLUMNS / 8;
constexpr int kSide = 64;                            // of a weight's gradient, at once
constexpr int kPadding = sizeof(REAL) == 8 ? 2 : 4;  // so that lanes read different banks

#ifdef HALF
__device__ inline REAL number(FEATURE bits) {
  return PRECISION == kBfloat16 ? from_bfloat16(bits) : from_float16(bits);
}
#else
__device__ inline REAL number(FEATURE x) { return x; }
#endif

// out [splits, M', D]: relu(sums over the pairs + bias + residual), null for no bias or residual;
// the kernel's offsets may be split, to keep a GPU busy with few outputs.
extern "C" __global__ void __launch_bounds__(kThreads)
    convolve(const FEATURE* features, const FEATURE* weight, const int32_t* inputs,
             const int32_t* outputs, const int64_t* starts, int64_t volume, int64_t is_mirrored,
             int64_t block, int64_t splits, int64_t num_outputs, int64_t in_channels,
             int64_t out_channels, const FEATURE* bias, const FEATURE* residual, int64_t relu,
             REAL* out) {
  __shared__ REAL gathered[kRows][kDepth + kPadding];
  __shared__ REAL matrix[kDepth][COLUMNS + 2 * kPadding];
  __shared__ int32_t rows[kRows];
  const int thread = int(threadIdx.x), warp_row = warp_of_thread() * 16;
  const int64_t first_column = int64_t(blockIdx.y) * COLUMNS;
  const int64_t own_block = int64_t(blockIdx.x) / splits, split = int64_t(blockIdx.x) % splits;
  const int64_t first_output = own_block * block;
  const int64_t last_output = min(first_output + block, num_outputs);
  const int columns = int(min(int64_t(COLUMNS), out_channels - first_column));
  const int64_t owned = (last_output - first_output) * COLUMNS;
  const auto place = [&](int64_t i) {
    return (first_output + i / COLUMNS) * out_channels + first_column + i % COLUMNS;
  };
  out += split * num_outputs * out_channels;
  for (int64_t i = thread; i < owned; i += kThreads) {
    if (i % COLUMNS < columns) out[place(i)] = 0;
  }
  __syncthreads();
  for (int64_t v = volume * split / splits; v < volume * (split + 1) / splits; ++v) {
    const int64_t group = own_block * volume + v, end = starts[group + 1];
    const FEATURE* const from =
        weight + (is_mirrored ? volume - 1 - v : v) * in_channels * out_channels + first_column;
    for (int64_t first = starts[group]; first < end; first += kRows) {
      const int count = int(min(int64_t(kRows), end - first));
      if (thread < count) rows[thread] = inputs[first + thread];
      REAL sums[kTiles][4] = {};
      for (int64_t c = 0; c < in_channels; c += kDepth) {
        const int depth = int(min(int64_t(kDepth), in_channels - c));
        __syncthreads();
        for (int i = thread; i < kRows * kDepth; i += kThreads) {
          const int row = i / kDepth, k = i % kDepth;
          const bool is_there = row < count && k < depth;
          gathered[row][k] = is_there ? number(features[rows[row] * in_channels + c + k]) : REAL(0);
        }
        for (int i = thread; i < kDepth * COLUMNS; i += kThreads) {
          const int k = i / COLUMNS, column = i % COLUMNS;
          const bool is_there = k < depth && column < columns;
          matrix[k][column] = is_there ? number(from[(c + k) * out_channels + column]) : REAL(0);
        }
        __syncthreads();
        if (warp_row >= count) continue;
        const Operand<REAL> a{gathered[warp_row], kDepth + kPadding, 1};
        const Operand<REAL> b{matrix[0], COLUMNS + 2 * kPadding, 1};
        multiply<PRECISION, kTiles>(a, b, kDepth, sums);
      }
      for (int half = 0; half < 2; ++half) {
        const int row = warp_row + lane_of_thread() / 4 + 8 * half;
        if (row >= count) continue;
        REAL* const to = out + outputs[first + row] * out_channels + first_column;
#pragma unroll
        for (int i = 0; i < 2 * kTiles; ++i) {
          const int column = i / 2 * 8 + lane_of_thread() % 4 * 2 + i % 2;
          if (column < columns) to[column] += sums[i / 2][2 * half + i % 2];
        }
      }
    }
  }
  __syncthreads();
  for (int64_t i = thread; i < owned; i += kThreads) {
    if (i % COLUMNS >= columns) continue;
    REAL sum = out[place(i)];
    if (bias) sum += number(bias[first_column + i % COLUMNS]);
    if (residual) sum += number(residual[place(i)]);
    out[place(i)] = relu && sum < 0 ? REAL(0) : sum;
  }
}

// parts [splits, V, C, D]: the gradient of the weight from each part of the blocks of outputs.
extern "C" __global__ void __launch_bounds__(kThreads)
    weight_gradient(const FEATURE* features, const FEATURE* grad, const int32_t* inputs,
                    const int32_t* outputs, const int64_t* starts, int64_t volume,
                    int64_t is_mirrored, int64_t num_blocks, int64_t splits, int64_t in_channels,
                    int64_t out_channels, REAL* parts) {
  __shared__ REAL left[kDepth][kSide + 2 * kPadding], right[kDepth][kSide + 2 * kPadding];
  constexpr int kWarpTiles = kSide / 16;  // two warps share 16 rows
  const int thread = int(threadIdx.x);
  const int warp_row = warp_of_thread() % 4 * 16, warp_column = warp_of_thread() / 4 * (kSide / 2);
  const int64_t v = int64_t(blockIdx.x) % volume, split = int64_t(blockIdx.x) / volume;
  const int64_t across = (out_channels + kSide - 1) / kSide;
  const int64_t first_row = int64_t(blockIdx.y) / across * kSide;
  const int64_t first_column = int64_t(blockIdx.y) % across * kSide;
  REAL sums[kWarpTiles][4] = {};
  for (int64_t b = num_blocks * split / splits; b < num_blocks * (split + 1) / splits; ++b) {
    const int64_t end = starts[b * volume + v + 1];
    for (int64_t first = starts[b * volume + v]; first < end; first += kDepth) {
      __syncthreads();
      for (int i = thread; i < kDepth * kSide; i += kThreads) {
        const int64_t pair = first + i / kSide;
        const int64_t row = first_row + i % kSide, column = first_column + i % kSide;
        const bool is_pair = pair < end;
        left[i / kSide][i % kSide] = is_pair && row < in_channels
                                         ? number(features[inputs[pair] * in_channels + row])
                                         : REAL(0);
        right[i / kSide][i % kSide] = is_pair && column < out_channels
                                          ? number(grad[outputs[pair] * out_channels + column])
                                          : REAL(0);
      }
      __syncthreads();
      const Operand<REAL> a{left[0] + warp_row, 1, kSide + 2 * kPadding};
      const Operand<REAL> c{right[0] + warp_column, kSide + 2 * kPadding, 1};
      multiply<PRECISION, kWarpTiles>(a, c, kDepth, sums);
    }
  }
  const int64_t matrix = split * volume + (is_mirrored ? volume - 1 - v : v);
  for (int i = 0; i < 4 * kWarpTiles; ++i) {
    const int64_t row = first_row + warp_row + lane_of_thread() / 4 + i % 4 / 2 * 8;
    const int64_t column =
        first_column + warp_column + i / 4 * 8 + lane_of_thread() % 4 * 2 + i % 2;
    if (row < in_channels && column < out_channels) {
      parts[(matrix * in_channels + row) * out_channels + column] = sums[i / 4][i % 4];
    }
  }
}

}  // namespace refer
