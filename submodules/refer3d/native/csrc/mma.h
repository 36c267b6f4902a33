// A warp's products of small matrices: on tensor cores in tf32, bfloat16 or float16 with sums in
// float, or in plain arithmetic. Operands are numbers in shared memory.
#pragma once

#include "device.h"

namespace refer {

// Operands, as they lie in shared memory: numbers, or words of 32 bits with one number in
// tf32 or two of 16 bits that follow each other in depth.
template <Precision kPrecision, typename T>
struct Stored {
  using Word = uint32_t;
};
template <typename T>
struct Stored<kPlain, T> {
  using Word = T;
};
__host__ __device__ constexpr int numbers_in_word(Precision precision) {
  return precision == kBfloat16 || precision == kFloat16 ? 2 : 1;
}

// Sixteen bytes, which are loaded and stored at once.
template <typename T>
struct alignas(16) Vector {
  static constexpr int kSize = 16 / sizeof(T);
  T x[kSize];
};

template <typename T>
__device__ Vector<T> load_vector(const T* from) {
  return *reinterpret_cast<const Vector<T>*>(from);
}
template <typename T>
__device__ void store_vector(T* to, const Vector<T>& vector) {
  *reinterpret_cast<Vector<T>*>(to) = vector;
}

// A warp's product of 16 rows with kColumns columns. A lane has rows lane / 4 and lane / 4 + 8, and
// of each a quarter of the columns.
template <Precision kPrecision, int kColumns, typename T>
struct Product {
  using Word = typename Stored<kPrecision, T>::Word;
  static constexpr int kOwn = kColumns / 4;

  T sums[2][kOwn];

  __device__ void clear() {
#pragma unroll
    for (int j = 0; j < kOwn; ++j) sums[0][j] = sums[1][j] = 0;
  }

  static __device__ int row(int half) { return lane_of_thread() / 4 + 8 * half; }
  static __device__ int column(int j) {
    const int quad = lane_of_thread() % 4;
    return kPrecision == kPlain ? quad * kOwn + j : j / 2 * 8 + 2 * quad + j % 2;
  }

  // Adds a [16, depth] times b [depth, kColumns], depth in words and a multiple of 8. a lies row by
  // row, or kTransposed its columns lie one by one; b lies row by row. What lies together begins at
  // whole vectors.
  template <bool kTransposed>
  __device__ void add(const Word* a, int a_stride, const Word* b, int b_stride, int depth) {
    const int quad = lane_of_thread() % 4;
    if constexpr (kPrecision == kPlain) {
      constexpr int kSize = Vector<T>::kSize;
#pragma unroll 2
      for (int k = 0; k < depth; k += kSize) {
        T left[2][kSize];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          if constexpr (kTransposed) {
#pragma unroll
            for (int i = 0; i < kSize; ++i) left[half][i] = a[(k + i) * a_stride + row(half)];
          } else {
            const Vector<T> part = load_vector(a + row(half) * a_stride + k);
#pragma unroll
            for (int i = 0; i < kSize; ++i) left[half][i] = part.x[i];
          }
        }
#pragma unroll
        for (int i = 0; i < kSize; ++i) {
#pragma unroll
          for (int j = 0; j < kOwn; j += kSize) {
            const Vector<T> right = load_vector(b + (k + i) * b_stride + quad * kOwn + j);
#pragma unroll
            for (int m = 0; m < kSize; ++m) {
              sums[0][j + m] += left[0][i] * right.x[m];
              sums[1][j + m] += left[1][i] * right.x[m];
            }
          }
        }
      }
    } else {
      const auto left = [&](int half, int k) {
        return kTransposed ? a[k * a_stride + row(half)] : a[row(half) * a_stride + k];
      };
#pragma unroll 2
      for (int first = 0; first < depth; first += 8) {  // as often in all lanes
        const int k = first + quad;
        const uint32_t lefts[4] = {left(0, k), left(1, k), left(0, k + 4), left(1, k + 4)};
#pragma unroll
        for (int n = 0; n < kColumns / 8; ++n) {
          const Word* const right = b + k * b_stride + 8 * n + lane_of_thread() / 4;
          const uint32_t rights[2] = {right[0], right[4 * b_stride]};
          multiply_fragments<kPrecision>(lefts, rights, sums[0] + 2 * n, sums[1] + 2 * n);
        }
      }
    }
  }
};

}  // namespace refer
