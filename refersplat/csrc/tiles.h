// Lists of the Gaussians in each tile of the image, nearest first.
#pragma once

#include <cstdint>
#include <vector>

#include "ellipse.h"

namespace refer {

// Projected Gaussians and the image that they fall on.
template <typename T>
struct Splats {
  int64_t count;
  const T *means2d, *conics, *depths, *opacities;
  int height, width;
};

// A Gaussian as the blending loops read it.
template <typename T>
struct Candidate : Ellipse<T>, Rectangle {
  int32_t gaussian;
  int64_t first_slot;  // slots are numbered by Gaussian, then row by row of its rectangle

  int64_t slot(int x, int y) const {
    return first_slot + int64_t(y - tile_y) * tiles_x + (x - tile_x);
  }
};

// Tile lists in anybody's memory: the backward pass reads those of the forward pass.
template <typename T>
struct TileView {
  int64_t count;
  const Candidate<T>* candidates;  // by depth, then by index
  const int32_t* entries;          // rows of candidates, tile by tile
  const int64_t* starts;           // [tiles + 1], each tile's first entry

  int64_t slots() const {
    if (count == 0) return 0;
    const Candidate<T>& last = candidates[count - 1];
    return last.first_slot + int64_t(last.tiles_x) * last.tiles_y;
  }
};

template <typename T>
struct TileLists {
  std::vector<Candidate<T>> candidates;
  std::vector<int32_t> entries;
  std::vector<int64_t> starts;

  TileView<T> view() const {
    return {int64_t(candidates.size()), candidates.data(), entries.data(), starts.data()};
  }
};

// Number of tiles that cover a row or column of pixels.
inline int tiles_along(int pixels) { return (pixels + kTile - 1) / kTile; }

template <typename T>
TileLists<T> make_tile_lists(const Splats<T>& splats, int threads);

}  // namespace refer
