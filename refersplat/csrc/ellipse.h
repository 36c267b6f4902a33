// The ellipse in which a projected Gaussian is seen at all, and what it reaches of the image. CPU
// and GPU code include it alike.
#pragma once

#include "splat.h"

namespace refer {

#ifdef __CUDACC__
namespace math {
using ::ceil, ::fabs, ::floor, ::fmax, ::fmin, ::log, ::sqrt;
}
#else
namespace math = std;
#endif

constexpr int kTile = 16;  // pixels; a row of a tile is one AVX-512 vector of floats
constexpr double kMinAlpha = 1.0 / 255;

template <typename T>
struct Ellipse {
  T u, v, xx, xy, yy, opacity;
  T reach;  // contributes where xx dx^2 + 2 xy dx dy + yy dy^2 <= reach
};

// The tiles that it may contribute to.
struct Rectangle {
  int tile_x, tile_y, tiles_x, tiles_y;
};

// From the box around the ellipse in which alpha reaches 1/255. Returns false where nothing is
// seen.
template <typename T>
REFER_HD bool find_rectangle(const T mean2d[2], const T conic[3], T depth, T opacity, int width,
                             int height, Ellipse<T>& e, Rectangle& tiles) {
  if (!(depth > T(kNear)) || !(opacity >= T(kMinAlpha))) return false;
  e.u = mean2d[0], e.v = mean2d[1];
  e.xx = conic[0], e.xy = conic[1], e.yy = conic[2];
  e.opacity = opacity;
  // A little more than exact: rounding must not cut off a pixel that the blending would take.
  e.reach = 2 * math::log(opacity * 255) * T(1 + 1e-5) + T(1e-4);
  const T determinant = e.xx * e.yy - e.xy * e.xy;
  const T half_x = math::sqrt(e.reach * e.yy / determinant) * T(1 + 1e-5) + T(1e-3);
  const T half_y = math::sqrt(e.reach * e.xx / determinant) * T(1 + 1e-5) + T(1e-3);
  const T left = math::ceil(e.u - half_x), right = math::floor(e.u + half_x);
  const T top = math::ceil(e.v - half_y), bottom = math::floor(e.v + half_y);
  // A needle's determinant may round to less than 0, and its form to one that grows outwards.
  const bool is_seen = e.xx > 0 && left <= right && right >= 0 && left < T(width) &&
                       top <= bottom && bottom >= 0 && top < T(height);
  if (!is_seen) return false;  // also where something is not a number
  const int last_x = int(math::fmin(right, T(width - 1))) / kTile;
  const int last_y = int(math::fmin(bottom, T(height - 1))) / kTile;
  tiles.tile_x = int(math::fmax(left, T(0))) / kTile;
  tiles.tile_y = int(math::fmax(top, T(0))) / kTile;
  tiles.tiles_x = last_x - tiles.tile_x + 1, tiles.tiles_y = last_y - tiles.tile_y + 1;
  return true;
}

// Whether the ellipse may reach a pixel of columns x0..x1 and rows y0..y1: the quadratic form's
// least value there lies at its centre or on a side that faces it.
template <typename T>
REFER_HD bool reaches_box(const Ellipse<T>& e, T x0, T y0, T x1, T y1) {
  const T near_x = math::fmin(math::fmax(e.u, x0), x1) - e.u;
  const T near_y = math::fmin(math::fmax(e.v, y0), y1) - e.v;
  if (near_x == 0 && near_y == 0) return true;
  // On the side x = near_x, y is best at -xy / yy near_x; on the other the same way.
  const T along_y = math::fmin(math::fmax(-e.xy / e.yy * near_x, y0 - e.v), y1 - e.v);
  const T along_x = math::fmin(math::fmax(-e.xy / e.xx * near_y, x0 - e.u), x1 - e.u);
  const T dx[2] = {near_x, along_x}, dy[2] = {along_y, near_y};
  const bool faces[2] = {near_x != 0, near_y != 0};
  for (int i = 0; i < 2; ++i) {
    const T squares = e.xx * dx[i] * dx[i] + e.yy * dy[i] * dy[i];
    const T mixed = 2 * e.xy * dx[i] * dy[i];
    // Where the two cancel, a pixel's own value carries their rounding errors.
    if (faces[i] && squares + mixed <= e.reach + T(1e-5) * squares) return true;
  }
  return false;
}

}  // namespace refer
