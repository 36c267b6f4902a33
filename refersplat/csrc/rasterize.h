// Rendering on the CPU: projection and colours of all Gaussians, tile lists, alpha blending forward
// and backward, and the sparse blend matrix of a view whose geometry is frozen.
#pragma once

#include <cstdint>
#include <vector>

#include "splat.h"

namespace refer {

template <typename T>
void project_all(int64_t count, const T* means, const T* quats, const T* scales,
                 const Pinhole<T>& camera, int threads, T* means2d, T* conics, T* depths,
                 int32_t* radii);

template <typename T>
void project_all_backward(int64_t count, const T* means, const T* quats, const T* scales,
                          const Pinhole<T>& camera, const T* grad_means2d, const T* grad_conics,
                          const T* grad_depths, int threads, T* grad_means, T* grad_quats,
                          T* grad_scales);

template <typename T>
void shade_all(int64_t count, int coefficients, int degree, const T* means, const T* sh,
               const T* position, int threads, T* colors);

// Writes all coefficients of grad_sh: those above the degree get zero.
template <typename T>
void shade_all_backward(int64_t count, int coefficients, int degree, const T* means, const T* sh,
                        const T* position, const T* colors, const T* grad_colors, int threads,
                        T* grad_means, T* grad_sh);

// Projected Gaussians and the image that they fall on.
template <typename T>
struct Splats {
  int64_t count;
  const T *means2d, *conics, *depths, *opacities;
  int height, width;
};

// image is [C, H, W], transmittance [H, W].
template <typename T>
void rasterize(const Splats<T>& splats, const T* values, int channels, int threads, T* image,
               T* transmittance);

// image is what rasterize gave; the gradients of Gaussians that are not seen are zero.
template <typename T>
void rasterize_backward(const Splats<T>& splats, const T* values, int channels, const T* image,
                        const T* transmittance, const T* grad_image, const T* grad_transmittance,
                        int threads, T* grad_means2d, T* grad_conics, T* grad_opacities,
                        T* grad_values);

// The weights with which a view blends its Gaussians. Tile by tile, one group for each Gaussian
// that contributes there, one (pixel of the tile, weight) pair for each pixel it contributes to.
template <typename T>
struct Blend {
  std::vector<int64_t> tile_groups;  // [tiles + 1], each tile's first group
  std::vector<int64_t> group_pairs;  // [groups + 1], each group's first pair
  std::vector<int32_t> gaussians;    // [groups]
  std::vector<uint8_t> pixels;       // [pairs]
  std::vector<T> weights;            // [pairs]
};

template <typename T>
Blend<T> blend_weights(const Splats<T>& splats, int threads, T* transmittance);

// The same in somebody else's memory.
template <typename T>
struct BlendView {
  int height, width;
  int64_t tiles, groups;
  const int64_t *tile_groups, *group_pairs;
  const int32_t* gaussians;
  const uint8_t* pixels;
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
