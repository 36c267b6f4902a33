// The sparse matrix (pixels x Gaussians) with which a view of frozen geometry blends its values.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "tiles.h"

namespace refer {

// Numbers that are not set to zero first.
template <typename V>
struct Memory {
  std::unique_ptr<V[]> data;
  int64_t size = 0;

  Memory() = default;
  explicit Memory(int64_t size) : data(new V[size]), size(size) {}
};

// Tile by tile, one group for each Gaussian that contributes there; of each group, its rows of
// pixels; of each row, which of its 16 pixels the Gaussian contributes to, and their weights one
// after another. Read from the front, nothing else needs to be stored.
template <typename T>
struct Blend {
  std::vector<int64_t> tile_groups;   // [tiles + 1], each tile's first group
  std::vector<int64_t> tile_weights;  // [tiles + 1], each tile's first weight
  Memory<int32_t> gaussians;          // [groups]
  Memory<int32_t> group_rows;         // [groups + 1], each group's first row
  Memory<int32_t> rows;               // bits 0 to 15: its pixels; above: its place in the tile
  Memory<T> weights;
};

template <typename T>
Blend<T> blend_weights(const Splats<T>& splats, int threads, T* transmittance);

// The same in somebody else's memory.
template <typename T>
struct BlendView {
  int height, width;
  int64_t tiles, groups, num_weights;
  const int64_t *tile_groups, *tile_weights;
  const int32_t *gaussians, *group_rows, *rows;
  const T* weights;
};

// image [C, H, W] = blend matrix times values [N, C].
template <typename T>
void blend_product(const BlendView<T>& blend, const T* values, int channels, int threads, T* image);

// grad_values [N, C] = transposed blend matrix times grad_image [C, H, W].
template <typename T>
void blend_transposed_product(const BlendView<T>& blend, const T* grad_image, int64_t count,
                              int channels, int threads, T* grad_values);

}  // namespace refer
