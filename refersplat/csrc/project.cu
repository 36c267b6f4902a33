// Projection and colours: one thread for each Gaussian.
#ifndef REAL
#define REAL float
#endif
// Degree of the harmonics, compiled in so that a Gaussian's stay in registers.
#ifndef DEGREE
#define DEGREE 3
#endif
#include "device.h"
#include "splat.h"

namespace refer {

// view: world-to-camera [4, 4].
__device__ inline Pinhole<REAL> pinhole(const REAL* view, double fx, double fy, double cx,
                                        double cy, double width, double height) {
  Pinhole<REAL> p;
  for (int i = 0; i < 12; ++i) p.view[i] = view[i];
  p.set_lens(fx, fy, cx, cy, width, height);
  return p;
}

extern "C" __global__ void project_all(const REAL* means, const REAL* quats, const REAL* scales,
                                       const REAL* view, double fx, double fy, double cx, double cy,
                                       double width, double height, int64_t count, REAL* means2d,
                                       REAL* conics, REAL* depths, int32_t* radii) {
  const int64_t i = global_thread();
  if (i >= count) return;
  Splat<REAL> s;
  radii[i] = project(means + 3 * i, quats + 4 * i, scales + 3 * i,
                     pinhole(view, fx, fy, cx, cy, width, height), s);
  means2d[2 * i] = s.u, means2d[2 * i + 1] = s.v, depths[i] = s.depth;
  conics[3 * i] = s.xx, conics[3 * i + 1] = s.xy, conics[3 * i + 2] = s.yy;
}

// grad_views [N, 12]: each Gaussian's share of the view's gradient, unless it is null.
extern "C" __global__ void project_all_backward(
    const REAL* means, const REAL* quats, const REAL* scales, const REAL* view, double fx,
    double fy, double cx, double cy, double width, double height, int64_t count,
    const REAL* grad_means2d, const REAL* grad_conics, const REAL* grad_depths, REAL* grad_means,
    REAL* grad_quats, REAL* grad_scales, REAL* grad_views) {
  const int64_t i = global_thread();
  if (i >= count) return;
  const Splat<REAL> grad = {grad_means2d[2 * i],    grad_means2d[2 * i + 1], grad_conics[3 * i],
                            grad_conics[3 * i + 1], grad_conics[3 * i + 2],  grad_depths[i]};
  const Pinhole<REAL> camera = pinhole(view, fx, fy, cx, cy, width, height);
  const REAL *const mean = means + 3 * i, *const quat = quats + 4 * i,
                    *const scale = scales + 3 * i;
  REAL* const to[3] = {grad_means + 3 * i, grad_quats + 4 * i, grad_scales + 3 * i};
  if (!grad_views) {
    project_backward(mean, quat, scale, camera, grad, to[0], to[1], to[2]);
    return;
  }
  REAL* const grad_view = grad_views + 12 * i;
  for (int k = 0; k < 12; ++k) grad_view[k] = 0;
  project_backward(mean, quat, scale, camera, grad, to[0], to[1], to[2], grad_view);
}

extern "C" __global__ void shade_all(const REAL* means, const REAL* sh, const REAL* position,
                                     int64_t coefficients, int64_t count, REAL* colors) {
  const int64_t i = global_thread();
  if (i >= count) return;
  shade(DEGREE, means + 3 * i, position, sh + 3 * coefficients * i, colors + 3 * i);
}

extern "C" __global__ void shade_all_backward(const REAL* means, const REAL* sh,
                                              const REAL* position, int64_t coefficients,
                                              int64_t count, const REAL* colors,
                                              const REAL* grad_colors, REAL* grad_means,
                                              REAL* grad_sh) {
  const int64_t i = global_thread();
  if (i >= count) return;
  REAL* const gradient = grad_sh + 3 * coefficients * i;
  shade_backward(DEGREE, means + 3 * i, position, sh + 3 * coefficients * i, colors + 3 * i,
                 grad_colors + 3 * i, grad_means + 3 * i, gradient);
  for (int64_t k = 3 * (DEGREE + 1) * (DEGREE + 1); k < 3 * coefficients; ++k) gradient[k] = 0;
}

}  // namespace refer
