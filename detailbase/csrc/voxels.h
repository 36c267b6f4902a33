// Voxel coordinates as numbers whose order keeps neighbours together (Morton's).
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>

#include "morton.h"

namespace refer {

// Number of bits that a number takes.
inline int bit_count(uint64_t x) {
  int bits = 0;
  for (; x != 0; x >>= 1) ++bits;
  return bits;
}

// From where voxels are counted, and how many bits a coordinate takes from there. The origin is a
// multiple of 2^16, so that voxels of twice the size, and twice that, are aligned with it.
struct Frame {
  int64_t batch = 0, origin[3] = {0, 0, 0};
  int64_t low[4] = {}, high[4] = {};  // of batch, x, y, z
  int axis_bits = 2, key_bits = 6;    // at least a brick of 4 x 4 x 4

  // `at(row, column)` is batch, x, y, z of a row.
  template <typename At>
  Frame(int64_t count, const At& at) {
    if (count == 0) return;
    for (int column = 0; column < 4; ++column) low[column] = high[column] = at(0, column);
    for (int64_t row = 1; row < count; ++row) {
      for (int column = 0; column < 4; ++column) {
        const int64_t value = at(row, column);
        low[column] = std::min(low[column], value);
        high[column] = std::max(high[column], value);
      }
    }
    batch = low[0];
    for (int axis = 0; axis < 3; ++axis) {
      origin[axis] = low[axis + 1] & ~int64_t{0xffff};
      const uint64_t extent = static_cast<uint64_t>(high[axis + 1]) - origin[axis];
      axis_bits = std::max(axis_bits, bit_count(extent));
    }
    key_bits = 3 * axis_bits + bit_count(static_cast<uint64_t>(high[0]) - low[0]);
    if (axis_bits > 21 || key_bits > 64) {
      throw std::invalid_argument(
          "coords must span fewer than 2^21 voxels on every axis (and fewer in a large batch); "
          "is the cloud in metres, and the voxel size right?");
    }
  }

  uint64_t key(int64_t scene, int64_t x, int64_t y, int64_t z) const {
    const uint64_t place = morton(x - origin[0], y - origin[1], z - origin[2]);
    // A shift by 63 leaves room for one batch entry.
    return place | static_cast<uint64_t>(scene - batch) << (3 * axis_bits);
  }
};

}  // namespace refer
