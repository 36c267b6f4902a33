// Everything that needs a GPU's compiler: types that NVRTC lacks, and instructions in PTX. A header
// of this name that is found first lets other hardware run the kernels.
#pragma once

typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
#define INFINITY __int_as_float(0x7f800000)

namespace refer {

enum Precision { kPlain, kTf32, kBfloat16, kFloat16 };

// 2^x and x / y: for floats in one or two instructions, within two units in the last place, and 0
// instead of what is no normal number.
__device__ inline float quick_exp2(float x) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
}
__device__ inline float quick_ratio(float x, float y) { return __fdividef(x, y); }
__device__ inline double quick_exp2(double x) { return exp2(x); }
__device__ inline double quick_ratio(double x, double y) { return x / y; }

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

}  // namespace refer
