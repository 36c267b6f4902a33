// Morton's order of places: bits of x, y and z in turn. CPU and GPU code include it alike.
#pragma once

#ifndef __CUDACC_RTC__
#include <cstdint>
#endif

#include "both.h"

namespace refer {

// The low 21 bits of a number, moved apart: bit i goes to bit 3 i.
REFER_HD uint64_t spread_bits(uint64_t x) {
  x &= 0x1fffff;
  x = (x | x << 32) & 0x001f00000000ffffull;
  x = (x | x << 16) & 0x001f0000ff0000ffull;
  x = (x | x << 8) & 0x100f00f00f00f00full;
  x = (x | x << 4) & 0x10c30c30c30c30c3ull;
  return (x | x << 2) & 0x1249249249249249ull;
}

// Bit 3 i goes to bit i: the inverse, which ignores the other bits.
REFER_HD uint64_t gather_bits(uint64_t x) {
  x &= 0x1249249249249249ull;
  x = (x | x >> 2) & 0x10c30c30c30c30c3ull;
  x = (x | x >> 4) & 0x100f00f00f00f00full;
  x = (x | x >> 8) & 0x001f0000ff0000ffull;
  x = (x | x >> 16) & 0x001f00000000ffffull;
  return (x | x >> 32) & 0x1fffff;
}

// x counts most, so the low three bits are a voxel's place (x, y, z) among the eight that share
// the voxel of twice the size.
REFER_HD uint64_t morton(uint64_t x, uint64_t y, uint64_t z) {
  return spread_bits(x) << 2 | spread_bits(y) << 1 | spread_bits(z);
}

}  // namespace refer
