// Projection and colours of all Gaussians.
#include <algorithm>

#include "op.h"
#include "parallel.h"
#include "splat.h"

namespace refer {

// In project_pose.cpp; adds to grad_view [12].
template <typename T>
void project_backward_with_view(int64_t count, const T* means, const T* quats, const T* scales,
                                const Pinhole<T>& camera, const T* grad_means2d,
                                const T* grad_conics, const T* grad_depths, int threads,
                                T* grad_means, T* grad_quats, T* grad_scales, T* grad_view);

namespace {

constexpr int64_t kGrain = 2048;

// Of view, world-to-camera, three rows are read; lens: fx, fy, cx, cy, width, height.
template <typename T>
Pinhole<T> pinhole(const T* view, const double* lens) {
  Pinhole<T> camera;
  std::copy_n(view, 12, camera.view);
  camera.set_lens(lens[0], lens[1], lens[2], lens[3], lens[4], lens[5]);
  return camera;
}

template <typename T>
void project_all(Array<const T> means, Array<const T> quats, Array<const T> scales,
                 Array<const T> view, Array<const double> lens, int threads, Array<T> means2d,
                 Array<T> conics, Array<T> depths, Array<int32_t> radii) {
  const Pinhole<T> camera = pinhole<T>(view, lens);
  parallel_for(means.shape(0), kGrain, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      Splat<T> s;
      radii[i] = project(means + 3 * i, quats + 4 * i, scales + 3 * i, camera, s);
      means2d[2 * i] = s.u, means2d[2 * i + 1] = s.v, depths[i] = s.depth;
      conics[3 * i] = s.xx, conics[3 * i + 1] = s.xy, conics[3 * i + 2] = s.yy;
    }
  });
}

// grad_view: zero before, or of no size where it is not wanted.
template <typename T>
void project_all_backward(Array<const T> means, Array<const T> quats, Array<const T> scales,
                          Array<const T> view, Array<const double> lens,
                          Array<const T> grad_means2d, Array<const T> grad_conics,
                          Array<const T> grad_depths, int threads, Array<T> grad_means,
                          Array<T> grad_quats, Array<T> grad_scales, Array<T> grad_view) {
  const Pinhole<T> camera = pinhole<T>(view, lens);
  if (grad_view.size()) {
    return project_backward_with_view<T>(means.shape(0), means, quats, scales, camera, grad_means2d,
                                         grad_conics, grad_depths, threads, grad_means, grad_quats,
                                         grad_scales, grad_view);
  }
  parallel_for(means.shape(0), kGrain, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Splat<T> grad = {grad_means2d[2 * i],    grad_means2d[2 * i + 1], grad_conics[3 * i],
                             grad_conics[3 * i + 1], grad_conics[3 * i + 2],  grad_depths[i]};
      project_backward(means + 3 * i, quats + 4 * i, scales + 3 * i, camera, grad,
                       grad_means + 3 * i, grad_quats + 4 * i, grad_scales + 3 * i);
    }
  });
}

template <typename T>
void shade_all(Array<const T> means, Array<const T> sh, Array<const T> position, int degree,
               int threads, Array<T> colors) {
  const int coefficients = int(sh.shape(1));
  parallel_for(means.shape(0), kGrain, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      shade<T>(degree, means + 3 * i, position, sh + 3 * coefficients * i, colors + 3 * i);
    }
  });
}

// Writes all coefficients of grad_sh: those above the degree get zero.
template <typename T>
void shade_all_backward(Array<const T> means, Array<const T> sh, Array<const T> position,
                        int degree, Array<const T> colors, Array<const T> grad_colors, int threads,
                        Array<T> grad_means, Array<T> grad_sh) {
  const int coefficients = int(sh.shape(1)), used = 3 * (degree + 1) * (degree + 1);
  parallel_for(means.shape(0), kGrain, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      T* const gradient = grad_sh + 3 * coefficients * i;
      shade_backward<T>(degree, means + 3 * i, position, sh + 3 * coefficients * i, colors + 3 * i,
                        grad_colors + 3 * i, grad_means + 3 * i, gradient);
      std::fill(gradient + used, gradient + 3 * coefficients, T(0));
    }
  });
}

REFER_OP(project, project_all, float, double)
REFER_OP(project_backward, project_all_backward, float, double)
REFER_OP(shade, shade_all, float, double)
REFER_OP(shade_backward, shade_all_backward, float, double)

}  // namespace
}  // namespace refer
