// Alpha blending of projected Gaussians, forward and backward.
#pragma once

#include "tiles.h"

namespace refer {

// values is [N, C], image [C, H, W], transmittance [H, W].
template <typename T>
void rasterize(const TileView<T>& lists, int height, int width, const T* values, int channels,
               int threads, T* image, T* transmittance);

// Gradients of `count` Gaussians, zero where they are not seen. image and transmittance are the
// results of rasterize.
template <typename T>
void rasterize_backward(const TileView<T>& lists, int64_t count, int height, int width,
                        const T* values, int channels, const T* image, const T* transmittance,
                        const T* grad_image, const T* grad_transmittance, int threads,
                        T* grad_means2d, T* grad_conics, T* grad_opacities, T* grad_values);

}  // namespace refer
