// Blending of one Gaussian into a row of pixels, and the walk through a tile's Gaussians.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "blending.h"
#include "tiles.h"

namespace refer {

// Further limits by the order of the bits: see at_most.
// max(x, 0)
inline float positive(float x) { return from_bits(std::max(bits_of(x), 0)); }
// max(x, limit) for limit < 0
inline float at_least(float x, float limit) {
  const uint32_t low = std::min(uint32_t(bits_of(x)), uint32_t(bits_of(limit)));
  return from_bits(int32_t(low));
}
inline double positive(double x) { return x > 0 ? x : 0; }

// exp(x) in operations that a loop over pixels can be vectorised with: within two units in the last
// place between the smallest alpha that counts and 1, still small below, still large above.
inline float fast_exp(float x) {
  x = at_most(at_least(x, -20.0f), 20.0f);
  const float scaled = x * 1.44269504f;
  const float whole = (scaled + 12582912.0f) - 12582912.0f;  // rounded to the nearest integer
  const float r = x - whole * 0.693145752f - whole * 1.42860677e-6f;
  float p = 1.38888889e-3f;
  p = p * r + 8.33333333e-3f;
  p = p * r + 4.16666667e-2f;
  p = p * r + 1.66666667e-1f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  return from_bits(bits_of(p) + int32_t(whole) * (1 << 23));
}
inline double fast_exp(double x) { return std::exp(x); }

// Numbers of a row of pixels, aligned so that no vector load touches two cache lines.
template <typename T>
struct alignas(64) Lanes {
  T lane[kTile] = {};
  T& operator[](int i) { return lane[i]; }
  const T& operator[](int i) const { return lane[i]; }
};

// One row of a tile while its Gaussians go by: each pixel's transmittance, negative from the moment
// that the pixel is finished.
template <typename T>
using Row = Lanes<T>;

// A Gaussian on a tile: offsets from its centre, and the rows that it can reach.
template <typename T>
struct Footprint {
  Lanes<T> dx, at_zero, per_dy;
  uint32_t rows;

  void compute(const Candidate<T>& c, int x0, int y0, int rows_inside) {
    const T slope = c.xy / c.xx, fall = c.yy - c.xy * slope, inverse = 1 / c.xx;
    const T first = T(x0) - c.u, last = first + T(kTile - 1);
    int32_t reached = 0;
#pragma omp simd reduction(| : reached)
    for (int i = 0; i < kTile; ++i) {
      dx[i] = c.u - T(x0 + i);
      at_zero[i] = T(-0.5) * c.xx * dx[i] * dx[i];
      per_dy[i] = -c.xy * dx[i];
      // Row i crosses the ellipse between middle - half and middle + half, right of the centre.
      const T dy = T(y0 + i) - c.v;
      const T room = (c.reach - fall * dy * dy) * inverse;
      const T half = std::sqrt(room < 0 ? T(0) : room) + T(0.01);
      const T middle = -slope * dy;
      const bool reaches =
          (room > T(-1e-3) * inverse) & (middle + half >= first) & (middle - half <= last);
      reached |= reaches ? 1 << i : 0;
    }
    rows = uint32_t(reached) & ((1u << rows_inside) - 1);
  }
};

inline int lowest_bit(uint32_t bits) {
  int i = 0;
#if defined(__GNUC__)
  i = __builtin_ctz(bits);
#else
  while (!(bits >> i & 1)) ++i;
#endif
  return i;
}

// Advances one row past one Gaussian; writes its weight at each pixel, and alpha where it is wanted
// (else nullptr).
template <typename T, typename Alpha>
inline void blend_row(const Candidate<T>& c, const Footprint<T>& f, T dy, Row<T>& row,
                      Lanes<T>& weight, Alpha alpha_out) {
  const T flat = T(-0.5) * c.yy * dy * dy;
#pragma omp simd
  for (int i = 0; i < kTile; ++i) {
    const T power = f.at_zero[i] + dy * f.per_dy[i] + flat;
    const T alpha = limited_alpha(c.opacity * fast_exp(power));
    const T left = row[i], open = positive(left), after = open * (1 - alpha);
    const bool alive = stays_open(after);
    weight[i] = alive ? alpha * open : T(0);
    row[i] = alive ? after : -std::abs(left);
    if constexpr (!std::is_null_pointer<Alpha>::value) (*alpha_out)[i] = alive ? alpha : T(0);
  }
}

// The transmittance of a row's pixels in the end.
template <typename T>
void write_transmittance(const Row<T>& row, int columns, T* to) {
  for (int i = 0; i < columns; ++i) to[i] = std::abs(row[i]);
}

template <typename T>
bool finished(const Row<T>& row) {
  int open = 0;
#pragma omp simd reduction(| : open)
  for (int i = 0; i < kTile; ++i) open |= row[i] > 0 ? 1 : 0;
  return open == 0;
}

// The part of an image that one tile covers.
struct Window {
  int x0, y0, columns, rows;
  Window(int64_t tile, int tiles_x, int height, int width)
      : x0(int(tile % tiles_x) * kTile),
        y0(int(tile / tiles_x) * kTile),
        columns(std::min(kTile, width - x0)),
        rows(std::min(kTile, height - y0)) {}
  // Offset of the window's row y in a plane of the image.
  int64_t offset(int y, int width) const { return int64_t(y0 + y) * width + x0; }
};

// The next Gaussians lie anywhere in memory.
constexpr int kAhead = 6;
inline void prefetch(const void* address) {
#if defined(__GNUC__)
  __builtin_prefetch(address);
#else
  (void)address;
#endif
}

// Walks through a tile's Gaussians, nearest first, until all its pixels are finished, and calls
// visit(candidate, footprint) for those that may reach one. `rows` is left as the last one left it.
template <typename T, typename Visit>
void walk(const TileView<T>& lists, int64_t tile, const Window& w, Row<T>* rows,
          const Visit& visit) {
  for (int y = 0; y < kTile; ++y) {
    for (int i = 0; i < kTile; ++i) rows[y][i] = i < w.columns && y < w.rows ? T(1) : T(-1);
  }
  uint32_t live = (1u << w.rows) - 1;
  int since_check = 0;
  Footprint<T> footprint;
  const int64_t end = lists.starts[tile + 1];
  for (int64_t e = lists.starts[tile]; e < end && live; ++e) {
    const Candidate<T>& c = lists.candidates[lists.entries[e]];
    prefetch(&lists.candidates[lists.entries[std::min(e + kAhead, end - 1)]]);
    footprint.compute(c, w.x0, w.y0, w.rows);
    footprint.rows &= live;
    if (footprint.rows) visit(c, footprint);
    if (++since_check == 16) {
      since_check = 0;
      for (uint32_t bits = live; bits; bits &= bits - 1) {
        const int y = lowest_bit(bits);
        if (finished(rows[y])) live &= ~(1u << y);
      }
    }
  }
}

// Calls body(std::integral_constant<int, C>) for common widths, with 0 for any other. Doubles are
// for checking gradients: they are compiled once.
template <typename T, typename Body>
void with_channels(int channels, const Body& body) {
  if constexpr (sizeof(T) == 8) {
    body(std::integral_constant<int, 0>());
  } else {
    switch (channels) {
      case 1:
        return body(std::integral_constant<int, 1>());
      case 3:
        return body(std::integral_constant<int, 3>());
      case 4:
        return body(std::integral_constant<int, 4>());
      case 16:
        return body(std::integral_constant<int, 16>());
      case 32:
        return body(std::integral_constant<int, 32>());
      default:
        return body(std::integral_constant<int, 0>());
    }
  }
}

// sums[k] += weight * value[k] for all channels.
template <typename T>
inline void add_weighted(const Lanes<T>& weight, const T* value, int channels, Lanes<T>* sums) {
  const Lanes<T> w = weight;
  for (int k = 0; k < channels; ++k) {
#pragma omp simd
    for (int i = 0; i < kTile; ++i) sums[k][i] += w[i] * value[k];
  }
}

template <typename T>
T sum(const Lanes<T>& lanes) {
  T total = 0;
#pragma omp simd reduction(+ : total)
  for (int i = 0; i < kTile; ++i) total += lanes[i];
  return total;
}

template <typename T>
T dot(const Lanes<T>& a, const Lanes<T>& b) {
  T total = 0;
#pragma omp simd reduction(+ : total)
  for (int i = 0; i < kTile; ++i) total += a[i] * b[i];
  return total;
}

}  // namespace refer
