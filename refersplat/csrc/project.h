// Projection and colours of all Gaussians.
#pragma once

#include <cstdint>

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

// The same, and adds to grad_view [12].
template <typename T>
void project_all_backward(int64_t count, const T* means, const T* quats, const T* scales,
                          const Pinhole<T>& camera, const T* grad_means2d, const T* grad_conics,
                          const T* grad_depths, int threads, T* grad_means, T* grad_quats,
                          T* grad_scales, T* grad_view);

template <typename T>
void shade_all(int64_t count, int coefficients, int degree, const T* means, const T* sh,
               const T* position, int threads, T* colors);

// Writes all coefficients of grad_sh: those above the degree get zero.
template <typename T>
void shade_all_backward(int64_t count, int coefficients, int degree, const T* means, const T* sh,
                        const T* position, const T* colors, const T* grad_colors, int threads,
                        T* grad_means, T* grad_sh);

}  // namespace refer
