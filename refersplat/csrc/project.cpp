#include "project.h"

#include <algorithm>

#include "parallel.h"

namespace refer {
namespace {

constexpr int64_t kGrain = 2048;

}  // namespace

template <typename T>
void project_all(int64_t count, const T* means, const T* quats, const T* scales,
                 const Pinhole<T>& camera, int threads, T* means2d, T* conics, T* depths,
                 int32_t* radii) {
  parallel_for(count, kGrain, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      Splat<T> s;
      radii[i] = project(means + 3 * i, quats + 4 * i, scales + 3 * i, camera, s);
      means2d[2 * i] = s.u, means2d[2 * i + 1] = s.v, depths[i] = s.depth;
      conics[3 * i] = s.xx, conics[3 * i + 1] = s.xy, conics[3 * i + 2] = s.yy;
    }
  });
}

template <typename T>
void project_all_backward(int64_t count, const T* means, const T* quats, const T* scales,
                          const Pinhole<T>& camera, const T* grad_means2d, const T* grad_conics,
                          const T* grad_depths, int threads, T* grad_means, T* grad_quats,
                          T* grad_scales) {
  parallel_for(count, kGrain, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Splat<T> grad = {grad_means2d[2 * i],    grad_means2d[2 * i + 1], grad_conics[3 * i],
                             grad_conics[3 * i + 1], grad_conics[3 * i + 2],  grad_depths[i]};
      project_backward(means + 3 * i, quats + 4 * i, scales + 3 * i, camera, grad,
                       grad_means + 3 * i, grad_quats + 4 * i, grad_scales + 3 * i);
    }
  });
}

template <typename T>
void shade_all(int64_t count, int coefficients, int degree, const T* means, const T* sh,
               const T* position, int threads, T* colors) {
  parallel_for(count, kGrain, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      shade(degree, means + 3 * i, position, sh + 3 * coefficients * i, colors + 3 * i);
    }
  });
}

template <typename T>
void shade_all_backward(int64_t count, int coefficients, int degree, const T* means, const T* sh,
                        const T* position, const T* colors, const T* grad_colors, int threads,
                        T* grad_means, T* grad_sh) {
  const int used = 3 * (degree + 1) * (degree + 1);
  parallel_for(count, kGrain, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      T* const gradient = grad_sh + 3 * coefficients * i;
      shade_backward(degree, means + 3 * i, position, sh + 3 * coefficients * i, colors + 3 * i,
                     grad_colors + 3 * i, grad_means + 3 * i, gradient);
      std::fill(gradient + used, gradient + 3 * coefficients, T(0));
    }
  });
}

#define REFER_INSTANTIATE(T)                                                                       \
  template void project_all(int64_t, const T*, const T*, const T*, const Pinhole<T>&, int, T*, T*, \
                            T*, int32_t*);                                                         \
  template void project_all_backward(int64_t, const T*, const T*, const T*, const Pinhole<T>&,     \
                                     const T*, const T*, const T*, int, T*, T*, T*);               \
  template void shade_all(int64_t, int, int, const T*, const T*, const T*, int, T*);               \
  template void shade_all_backward(int64_t, int, int, const T*, const T*, const T*, const T*,      \
                                   const T*, int, T*, T*);
REFER_INSTANTIATE(float)
REFER_INSTANTIATE(double)

}  // namespace refer
