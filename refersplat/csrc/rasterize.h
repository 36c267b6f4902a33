// Alpha blending of projected Gaussians, forward and backward.
#pragma once

#include <cstdint>

namespace refer {

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

}  // namespace refer
