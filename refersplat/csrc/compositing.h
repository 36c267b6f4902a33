// How one row of pixels blends one Gaussian, and how a tile's Gaussians go by.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "tiles.h"

namespace refer {

constexpr double kMaxAlpha = 0.99;
constexpr double kMinTransmittance = 1e-4;

// exp(x) in operations that a loop over pixels can be vectorised with: within two units in the last
// place between the smallest alpha that counts and 1, still small below, still large above.
inline float fast_exp(float x) {
  x = x < -20.0f ? -20.0f : x;
  x = x > 20.0f ? 20.0f : x;
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
  int32_t bits;
  std::memcpy(&bits, &p, 4);
  bits += int32_t(whole) * (1 << 23);
  std::memcpy(&p, &bits, 4);
  return p;
}
inline double fast_exp(double x) { return std::exp(x); }

// One row of one tile while its Gaussians go by.
template <typename T>
struct alignas(64) Row {
  T open[kTile];  // transmittance so far; 0 where the pixel is finished
  T left[kTile];  // transmittance behind the last Gaussian that contributed
};

// Where the Gaussian meets a tile: offsets from its centre, and which rows it can reach at all.
template <typename T>
struct alignas(64) Footprint {
  T dx[kTile], at_zero[kTile], per_dy[kTile];
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

// Advances one row past one Gaussian; writes its weight at each pixel, and alpha if it is wanted.
template <typename T>
inline void blend_row(const Candidate<T>& c, const Footprint<T>& f, T dy, Row<T>& row, T* weight,
                      T* alpha_out) {
  const T flat = T(-0.5) * c.yy * dy * dy;
#pragma omp simd
  for (int i = 0; i < kTile; ++i) {
    const T power = f.at_zero[i] + dy * f.per_dy[i] + flat;
    T alpha = c.opacity * fast_exp(power);
    alpha = alpha > T(kMaxAlpha) ? T(kMaxAlpha) : alpha;
    alpha = alpha < T(kMinAlpha) ? T(0) : alpha;
    const T open = row.open[i], after = open * (1 - alpha);
    const bool alive = after >= T(kMinTransmittance);
    weight[i] = alive ? alpha * open : T(0);
    row.open[i] = alive ? after : T(0);
    row.left[i] = alive ? after : row.left[i];
    alpha_out[i] = alive ? alpha : T(0);
  }
}

template <typename T>
bool finished(const Row<T>& row) {
  T most = 0;
  for (int i = 0; i < kTile; ++i) most = row.open[i] > most ? row.open[i] : most;
  return most == 0;
}

// The part of an image that one tile covers.
struct Window {
  int x0, y0, columns, rows;
  Window(int64_t tile, int tiles_x, int height, int width)
      : x0(int(tile % tiles_x) * kTile),
        y0(int(tile / tiles_x) * kTile),
        columns(std::min(kTile, width - x0)),
        rows(std::min(kTile, height - y0)) {}
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

// Walks through a tile's Gaussians, nearest first, until all its pixels are finished:
// visit(entry, candidate, footprint, live rows).
template <typename T, typename Visit>
void walk(const TileLists<T>& lists, int64_t tile, const Window& w, Row<T>* rows,
          const Visit& visit) {
  for (int y = 0; y < kTile; ++y) {
    for (int i = 0; i < kTile; ++i) {
      rows[y].left[i] = 1;
      rows[y].open[i] = i < w.columns && y < w.rows ? 1 : 0;
    }
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

template <typename T>
T sum(const T* lanes) {
  T total = 0;
#pragma omp simd reduction(+ : total)
  for (int i = 0; i < kTile; ++i) total += lanes[i];
  return total;
}

template <typename T>
T dot(const T* a, const T* b) {
  T total = 0;
#pragma omp simd reduction(+ : total)
  for (int i = 0; i < kTile; ++i) total += a[i] * b[i];
  return total;
}

}  // namespace refer
