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
inline uint32_t pack_bfloat16(float low, float high) {
  return to_bfloat16(low) | to_bfloat16(high) << 16;
}
inline uint32_t pack_float16(float low, float high) {
  return to_float16(low) | to_float16(high) << 16;
}

// d += a b as PTX defines it: a lane's registers hold these places of a [16, K] and b [K, 8].
template <Precision kPrecision>
void multiply_fragments(const uint32_t a[4], const uint32_t b[2], float d[4]) {
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
      d[i] += value(2 * upper + row / 8, row % 8 * 4 + quad, part) *
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
__device__ inline uint32_t pack_bfloat16(float low, float high) {
  uint32_t bits;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  return bits;
}
__device__ inline uint32_t pack_float16(float low, float high) {
  uint32_t bits;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
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
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                             \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))

template <Precision kPrecision>
__device__ void multiply_fragments(const uint32_t a[4], const uint32_t b[2], float d[4]) {
  if constexpr (kPrecision == kTf32) {
    REFER_MMA("m16n8k8.row.col.f32.tf32.tf32.f32");
  } else if constexpr (kPrecision == kBfloat16) {
    REFER_MMA("m16n8k16.row.col.f32.bf16.bf16.f32");
  } else {
    REFER_MMA("m16n8k16.row.col.f32.f16.f16.f32");
  }
}

#endif

// A matrix in shared memory.
template <typename T>
struct Operand {
  const T* values;
  int row_stride, column_stride;
  __device__ T operator()(int row, int column) const {
    return values[row * row_stride + column * column_stride];
  }
};

// Adds a [16, depth] times b [depth, 8 kTiles] to the warp's sums. Of tile n a lane has rows
// lane / 4 (numbers 0 and 1) and lane / 4 + 8 (2 and 3), columns 8 n + lane % 4 * 2 and the next.
// depth is a multiple of 16. Called by whole warps.
template <Precision kPrecision, int kTiles, typename T>
__device__ void multiply(const Operand<T>& a, const Operand<T>& b, int depth, T sums[kTiles][4]) {
  const int row = lane_of_thread() / 4, quad = lane_of_thread() % 4;
  if constexpr (kPrecision == kPlain) {
    for (int k = 0; k < depth; ++k) {
      const T upper = a(row, k), lower = a(row + 8, k);
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        const T left = b(k, 8 * n + 2 * quad), right = b(k, 8 * n + 2 * quad + 1);
        sums[n][0] += upper * left, sums[n][1] += upper * right;
        sums[n][2] += lower * left, sums[n][3] += lower * right;
      }
    }
  } else if constexpr (kPrecision == kTf32) {
    for (int k = quad; k < depth; k += 8) {
      const uint32_t left[4] = {to_tf32(a(row, k)), to_tf32(a(row + 8, k)), to_tf32(a(row, k + 4)),
                                to_tf32(a(row + 8, k + 4))};
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        const int column = 8 * n + row;
        const uint32_t right[2] = {to_tf32(b(k, column)), to_tf32(b(k + 4, column))};
        multiply_fragments<kPrecision>(left, right, sums[n]);
      }
    }
  } else {
    const auto pack = [](float low, float high) {
      return kPrecision == kBfloat16 ? pack_bfloat16(low, high) : pack_float16(low, high);
    };
    for (int k = 2 * quad; k < depth; k += 16) {
      const uint32_t left[4] = {
          pack(a(row, k), a(row, k + 1)), pack(a(row + 8, k), a(row + 8, k + 1)),
          pack(a(row, k + 8), a(row, k + 9)), pack(a(row + 8, k + 8), a(row + 8, k + 9))};
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        const int column = 8 * n + row;
        const uint32_t right[2] = {pack(b(k, column), b(k + 1, column)),
                                   pack(b(k + 8, column), b(k + 9, column))};
        multiply_fragments<kPrecision>(left, right, sums[n]);
      }
    }
  }
}

}  // namespace refer
