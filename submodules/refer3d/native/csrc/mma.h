// A warp's products of small matrices: on tensor cores in tf32, bfloat16 or float16 with sums in
// float, or in plain arithmetic. Operands are numbers in shared memory.
#pragma once

#include "device.h"

namespace refer {

enum Precision { kPlain, kTf32, kBfloat16, kFloat16 };

#ifdef REFER_EMULATED

inline uint32_t to_tf32(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return (bits + 0x1000) & ~0x1fffu;  // to the nearest of ten bits, away from zero
}
inline uint32_t to_bfloat16(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
inline uint32_t to_float16(float x) {
  const _Float16 half = _Float16(x);
  uint16_t bits;
  memcpy(&bits, &half, 2);
  return bits;
}
inline float from_tf32(uint32_t bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}
inline float from_bfloat16(uint32_t bits) { return from_tf32(bits << 16); }
inline float from_float16(uint32_t bits) {
  const uint16_t low = uint16_t(bits);
  _Float16 half;
  memcpy(&half, &low, 2);
  return float(half);
}

// Adds a b to the sums as PTX defines it: a lane's registers hold these places of a [16, K] and
// b [K, 8]; its sums are of two rows and two columns.
template <Precision kPrecision>
void multiply_fragments(const uint32_t a[4], const uint32_t b[2], float* upper_row,
                        float* lower_row) {
  constexpr int kDepth = kPrecision == kTf32 ? 8 : 16, kEach = kDepth / 8;
  uint64_t registers[3][kWarp];
  const uint32_t own[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
  for (int i = 0; i < 3; ++i) {
    const uint64_t pair = own[2 * i] | uint64_t(own[2 * i + 1]) << 32;
    memcpy(registers[i], emulation::exchange(kAllLanes, pair, __LINE__), sizeof(registers[i]));
  }
  const auto value = [&](int index, int lane, int part) {
    const uint32_t bits = uint32_t(registers[index / 2][lane] >> (32 * (index % 2)));
    if (kPrecision == kTf32) return from_tf32(bits);
    const uint32_t half = bits >> (16 * part) & 0xffff;
    return kPrecision == kBfloat16 ? from_bfloat16(half) : from_float16(half);
  };
  const int lane = lane_of_thread();
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
    for (int k = 0; k < kDepth; ++k) {
      const int upper = k / (kDepth / 2), quad = k % (kDepth / 2) / kEach, part = k % kEach;
      (i < 2 ? upper_row : lower_row)[i % 2] +=
          value(2 * upper + row / 8, row % 8 * 4 + quad, part) *
          value(4 + upper, column * 4 + quad, part);
    }
  }
}

#else

__device__ inline uint32_t to_tf32(float x) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return bits;
}
__device__ inline uint32_t to_bfloat16(float x) {
  uint16_t bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
}
__device__ inline uint32_t to_float16(float x) {
  uint16_t bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
}
__device__ inline float from_bfloat16(uint32_t bits) { return __uint_as_float(bits << 16); }
__device__ inline float from_float16(uint32_t bits) {
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(static_cast<uint16_t>(bits)));
  return x;
}

#define REFER_MMA(shape)                                                                           \
  asm("mma.sync.aligned." shape " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
      : "+f"(upper_row[0]), "+f"(upper_row[1]), "+f"(lower_row[0]), "+f"(lower_row[1])             \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))

template <Precision kPrecision>
__device__ void multiply_fragments(const uint32_t a[4], const uint32_t b[2], float* upper_row,
                                   float* lower_row) {
  if constexpr (kPrecision == kTf32) {
    REFER_MMA("m16n8k8.row.col.f32.tf32.tf32.f32");
  } else if constexpr (kPrecision == kBfloat16) {
    REFER_MMA("m16n8k16.row.col.f32.bf16.bf16.f32");
  } else {
    REFER_MMA("m16n8k16.row.col.f32.f16.f16.f32");
  }
}

#endif

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
