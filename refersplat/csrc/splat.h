// The arithmetic of one Gaussian: its projection (EWA splatting, Zwicker et al. 2001, as in Kerbl
// et al. 2023), its colour from spherical harmonics, and both their derivatives. No loops over
// Gaussians, no memory but the arguments: CPU and GPU code include it alike.
#pragma once

#ifndef __CUDACC_RTC__
#include <cmath>
#endif

#include "both.h"

namespace refer {

template <typename T>
struct Pinhole {
  T view[12];  // first three rows of world-to-camera
  T fx, fy, cx, cy;
  T width, height;
  // x / z and y / z are clamped to these inside the projection's Jacobian.
  T min_x, max_x, min_y, max_y;

  REFER_HD void set_lens(double fx, double fy, double cx, double cy, double width, double height) {
    this->fx = T(fx), this->fy = T(fy), this->cx = T(cx), this->cy = T(cy);
    this->width = T(width), this->height = T(height);
    const double margin_x = 0.3 * width / (2 * fx), margin_y = 0.3 * height / (2 * fy);
    min_x = T(-cx / fx - margin_x), max_x = T((width - cx) / fx + margin_x);
    min_y = T(-cy / fy - margin_y), max_y = T((height - cy) / fy + margin_y);
  }
};

template <typename T>
struct Splat {
  T u, v;        // centre in pixels
  T xx, xy, yy;  // inverse covariance
  T depth;
};

constexpr double kNear = 0.2;
constexpr double kBlur = 0.3;
template <typename T>
constexpr double kRounding = sizeof(T) == 4 ? 1.1920929e-7 : 2.220446049250313e-16;

template <typename T>
REFER_HD void rotation_matrix(const T q[4], T r[9]) {
  const T w = q[0], x = q[1], y = q[2], z = q[3];
  r[0] = 1 - 2 * (y * y + z * z), r[1] = 2 * (x * y - w * z), r[2] = 2 * (x * z + w * y);
  r[3] = 2 * (x * y + w * z), r[4] = 1 - 2 * (x * x + z * z), r[5] = 2 * (y * z - w * x);
  r[6] = 2 * (x * z - w * y), r[7] = 2 * (y * z + w * x), r[8] = 1 - 2 * (x * x + y * y);
}

// Intermediate values of the projection and its derivative.
template <typename T>
struct Projection {
  T x, y, z;  // in the camera's frame
  T jx, jy;   // entries (0, 2) and (1, 2) of the Jacobian
  bool clamped_x, clamped_y;
  T inverse_norm, q[4], r[9];
  T jw[6];      // Jacobian times view rotation, [2, 3]
  T t[6];       // that times rotation times scale: covariance = t t^T + blur
  T minors[3];  // of t: columns (1, 2), (2, 0), (0, 1)
  T a, b, c, inverse_determinant;

  REFER_HD void compute(const T mean[3], const T quat[4], const T scale[3], const Pinhole<T>& p) {
    const T* v = p.view;
    x = v[0] * mean[0] + v[1] * mean[1] + v[2] * mean[2] + v[3];
    y = v[4] * mean[0] + v[5] * mean[1] + v[6] * mean[2] + v[7];
    z = v[8] * mean[0] + v[9] * mean[1] + v[10] * mean[2] + v[11];
    if (!(z > T(kNear))) return;
    const T ratio_x = x / z, ratio_y = y / z;
    clamped_x = ratio_x < p.min_x || ratio_x > p.max_x;
    clamped_y = ratio_y < p.min_y || ratio_y > p.max_y;
    jx = -p.fx * fmin(fmax(ratio_x, p.min_x), p.max_x) / z;
    jy = -p.fy * fmin(fmax(ratio_y, p.min_y), p.max_y) / z;
    const T norm =
        sqrt(quat[0] * quat[0] + quat[1] * quat[1] + quat[2] * quat[2] + quat[3] * quat[3]);
    inverse_norm = 1 / fmax(norm, T(1e-12));
    for (int i = 0; i < 4; ++i) q[i] = quat[i] * inverse_norm;
    rotation_matrix(q, r);
    for (int i = 0; i < 3; ++i) {
      jw[i] = p.fx / z * v[i] + jx * v[8 + i];
      jw[3 + i] = p.fy / z * v[4 + i] + jy * v[8 + i];
    }
    for (int i = 0; i < 3; ++i) {
      t[i] = (jw[0] * r[i] + jw[1] * r[3 + i] + jw[2] * r[6 + i]) * scale[i];
      t[3 + i] = (jw[3] * r[i] + jw[4] * r[3 + i] + jw[5] * r[6 + i]) * scale[i];
    }
    minors[0] = t[1] * t[5] - t[2] * t[4];
    minors[1] = t[2] * t[3] - t[0] * t[5];
    minors[2] = t[0] * t[4] - t[1] * t[3];
    a = t[0] * t[0] + t[1] * t[1] + t[2] * t[2] + T(kBlur);
    b = t[0] * t[3] + t[1] * t[4] + t[2] * t[5];
    c = t[3] * t[3] + t[4] * t[4] + t[5] * t[5] + T(kBlur);
    // By Cauchy and Binet: of a needle, a c - b b has no right digit in float32.
    inverse_determinant = 1 / (minors[0] * minors[0] + minors[1] * minors[1] +
                               minors[2] * minors[2] + T(kBlur) * (a + c - T(kBlur)));
  }
};

// Returns the radius in pixels, three standard deviations rounded up; 0 where nothing is seen.
template <typename T>
REFER_HD int project(const T mean[3], const T quat[4], const T scale[3], const Pinhole<T>& camera,
                     Splat<T>& out) {
  Projection<T> p;
  p.compute(mean, quat, scale, camera);
  out.depth = p.z;
  if (!(p.z > T(kNear))) {
    out.u = out.v = out.xx = out.xy = out.yy = 0;
    return 0;
  }
  out.u = camera.fx * p.x / p.z + camera.cx - T(0.5);
  out.v = camera.fy * p.y / p.z + camera.cy - T(0.5);
  // A little rounder than exact: rounded, the form of a needle could grow outwards.
  const T round = T(2 * kRounding<T>) * (p.a + p.c) * p.inverse_determinant;
  out.xx = p.c * p.inverse_determinant + round;
  out.xy = -p.b * p.inverse_determinant;
  out.yy = p.a * p.inverse_determinant + round;
  const T middle = (p.a + p.c) / 2;
  const T spread = sqrt(fmax(middle * middle - (p.a * p.c - p.b * p.b), T(0.1)));
  const T radius = ceil(3 * sqrt(middle + spread));
  const bool on_image = out.u + radius >= 0 && out.u - radius < camera.width &&
                        out.v + radius >= 0 && out.v - radius < camera.height;
  return on_image ? static_cast<int>(fmin(radius, T(1 << 30))) : 0;
}

// Gradients of a loss in mean, quaternion and scale from those in the splat. Those in the view
// [12], an optional last argument, are added to; without it the compiler sees none of it, and
// rounds the others as ever. Behind the camera only the gradient in the depth is left.
template <typename T, typename... View>
REFER_HD void project_backward(const T mean[3], const T quat[4], const T scale[3],
                               const Pinhole<T>& camera, const Splat<T>& grad, T grad_mean[3],
                               T grad_quat[4], T grad_scale[3], View... grad_view) {
  for (int i = 0; i < 3; ++i) grad_mean[i] = grad_scale[i] = 0;
  for (int i = 0; i < 4; ++i) grad_quat[i] = 0;
  Projection<T> p;
  p.compute(mean, quat, scale, camera);
  T gx = 0, gy = 0, gz = grad.depth;
  if (p.z > T(kNear)) {
    // Derivative of an inverse: dS = -K dK K, with the off-diagonal entry's gradient shared by its
    // two places.
    const T xx = p.c * p.inverse_determinant, yy = p.a * p.inverse_determinant;
    const T xy = -p.b * p.inverse_determinant, h = grad.xy / 2;
    const T m00 = grad.xx * xx + h * xy, m01 = grad.xx * xy + h * yy;
    const T m10 = h * xx + grad.yy * xy, m11 = h * xy + grad.yy * yy;
    const T s00 = -(xx * m00 + xy * m10), s01 = -(xx * m01 + xy * m11);
    const T s11 = -(xy * m01 + yy * m11);

    T gt[6], gjw[6] = {}, gr[9];
    for (int i = 0; i < 3; ++i) {
      gt[i] = 2 * (s00 * p.t[i] + s01 * p.t[3 + i]);
      gt[3 + i] = 2 * (s01 * p.t[i] + s11 * p.t[3 + i]);
    }
    for (int k = 0; k < 3; ++k) {
      for (int i = 0; i < 3; ++i) {
        const T gm = p.jw[i] * gt[k] + p.jw[3 + i] * gt[3 + k];  // of (rotation times scale)[i, k]
        grad_scale[k] += p.r[3 * i + k] * gm;
        gr[3 * i + k] = gm * scale[k];
        gjw[i] += gt[k] * p.r[3 * i + k] * scale[k];
        gjw[3 + i] += gt[3 + k] * p.r[3 * i + k] * scale[k];
      }
    }

    const T *v = camera.view, inverse_z = 1 / p.z, inverse_z2 = inverse_z * inverse_z;
    const T g00 = gjw[0] * v[0] + gjw[1] * v[1] + gjw[2] * v[2];
    const T g02 = gjw[0] * v[8] + gjw[1] * v[9] + gjw[2] * v[10];
    const T g11 = gjw[3] * v[4] + gjw[4] * v[5] + gjw[5] * v[6];
    const T g12 = gjw[3] * v[8] + gjw[4] * v[9] + gjw[5] * v[10];
    gz -= (camera.fx * g00 + camera.fy * g11) * inverse_z2;
    // jx = -fx x / z^2, or -fx limit / z where it is clamped.
    gz -= (p.clamped_x ? 1 : 2) * p.jx * inverse_z * g02;
    gz -= (p.clamped_y ? 1 : 2) * p.jy * inverse_z * g12;
    if (!p.clamped_x) gx -= camera.fx * inverse_z2 * g02;
    if (!p.clamped_y) gy -= camera.fy * inverse_z2 * g12;

    if constexpr (sizeof...(View) > 0) {
      for (int i = 0; i < 3; ++i) {
        ((grad_view[i] += camera.fx * inverse_z * gjw[i]), ...);
        ((grad_view[4 + i] += camera.fy * inverse_z * gjw[3 + i]), ...);
        ((grad_view[8 + i] += p.jx * gjw[i] + p.jy * gjw[3 + i]), ...);
      }
    }

    gx += camera.fx * inverse_z * grad.u;
    gy += camera.fy * inverse_z * grad.v;
    gz -= (camera.fx * p.x * grad.u + camera.fy * p.y * grad.v) * inverse_z2;

    const T w = p.q[0], x = p.q[1], y = p.q[2], z = p.q[3];
    const T gq[4] = {2 * (x * (gr[7] - gr[5]) + y * (gr[2] - gr[6]) + z * (gr[3] - gr[1])),
                     2 * (y * (gr[1] + gr[3]) + z * (gr[2] + gr[6]) + w * (gr[7] - gr[5]) -
                          2 * x * (gr[4] + gr[8])),
                     2 * (x * (gr[1] + gr[3]) + z * (gr[5] + gr[7]) + w * (gr[2] - gr[6]) -
                          2 * y * (gr[0] + gr[8])),
                     2 * (x * (gr[2] + gr[6]) + y * (gr[5] + gr[7]) + w * (gr[3] - gr[1]) -
                          2 * z * (gr[0] + gr[4]))};
    const T along = w * gq[0] + x * gq[1] + y * gq[2] + z * gq[3];
    for (int i = 0; i < 4; ++i) grad_quat[i] = (gq[i] - p.q[i] * along) * p.inverse_norm;
  }
  for (int i = 0; i < 3; ++i) {
    grad_mean[i] = camera.view[i] * gx + camera.view[4 + i] * gy + camera.view[8 + i] * gz;
  }
  if constexpr (sizeof...(View) > 0) {
    for (int i = 0; i < 4; ++i) {
      const T at = i < 3 ? mean[i] : T(1);
      ((grad_view[i] += gx * at, grad_view[4 + i] += gy * at, grad_view[8 + i] += gz * at), ...);
    }
  }
}

// The (degree + 1)^2 real spherical harmonics of a unit direction, in 3DGS's order and signs.
template <typename T>
REFER_HD void harmonics(int degree, T x, T y, T z, T basis[16]) {
  basis[0] = T(0.28209479177387814);
  if (degree < 1) return;
  const T c1 = T(0.4886025119029199);
  basis[1] = -c1 * y, basis[2] = c1 * z, basis[3] = -c1 * x;
  if (degree < 2) return;
  const T xx = x * x, yy = y * y, zz = z * z;
  basis[4] = T(1.0925484305920792) * x * y;
  basis[5] = T(-1.0925484305920792) * y * z;
  basis[6] = T(0.31539156525252005) * (2 * zz - xx - yy);
  basis[7] = T(-1.0925484305920792) * x * z;
  basis[8] = T(0.5462742152960396) * (xx - yy);
  if (degree < 3) return;
  basis[9] = T(-0.5900435899266435) * y * (3 * xx - yy);
  basis[10] = T(2.890611442640554) * x * y * z;
  basis[11] = T(-0.4570457994644658) * y * (4 * zz - xx - yy);
  basis[12] = T(0.3731763325901154) * z * (2 * zz - 3 * xx - 3 * yy);
  basis[13] = T(-0.4570457994644658) * x * (4 * zz - xx - yy);
  basis[14] = T(1.445305721320277) * z * (xx - yy);
  basis[15] = T(-0.5900435899266435) * x * (xx - 3 * yy);
}

// sum_k weights[k] * d basis[k] / d (x, y, z).
template <typename T>
REFER_HD void harmonics_backward(int degree, T x, T y, T z, const T weights[16], T grad[3]) {
  grad[0] = grad[1] = grad[2] = 0;
  if (degree < 1) return;
  const T c1 = T(0.4886025119029199), *w = weights;
  grad[0] -= c1 * w[3], grad[1] -= c1 * w[1], grad[2] += c1 * w[2];
  if (degree < 2) return;
  const T a = T(1.0925484305920792), b = T(0.31539156525252005), c = T(0.5462742152960396);
  grad[0] += a * (y * w[4] - z * w[7]) + 2 * x * (c * w[8] - b * w[6]);
  grad[1] += a * (x * w[4] - z * w[5]) - 2 * y * (c * w[8] + b * w[6]);
  grad[2] += -a * (y * w[5] + x * w[7]) + 4 * b * z * w[6];
  if (degree < 3) return;
  const T xx = x * x, yy = y * y, zz = z * z;
  const T d = T(0.5900435899266435), e = T(2.890611442640554), f = T(0.4570457994644658);
  const T g = T(0.3731763325901154), h = T(1.445305721320277);
  grad[0] += -6 * d * x * y * w[9] + e * y * z * w[10] + 2 * f * x * y * w[11] -
             6 * g * x * z * w[12] - f * (4 * zz - 3 * xx - yy) * w[13] + 2 * h * x * z * w[14] -
             3 * d * (xx - yy) * w[15];
  grad[1] += -3 * d * (xx - yy) * w[9] + e * x * z * w[10] - f * (4 * zz - xx - 3 * yy) * w[11] -
             6 * g * y * z * w[12] + 2 * f * x * y * w[13] - 2 * h * y * z * w[14] +
             6 * d * x * y * w[15];
  grad[2] += e * x * y * w[10] - 8 * f * y * z * w[11] + 3 * g * (2 * zz - xx - yy) * w[12] -
             8 * f * x * z * w[13] + h * (xx - yy) * w[14];
}

// Colour of one Gaussian seen from `position`: harmonics + 0.5, clamped at 0. sh is [K, 3].
template <typename T>
REFER_HD void shade(int degree, const T mean[3], const T position[3], const T* sh, T color[3]) {
  T d[3] = {mean[0] - position[0], mean[1] - position[1], mean[2] - position[2]}, basis[16];
  const T inverse = 1 / fmax(sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2]), T(1e-12));
  harmonics(degree, d[0] * inverse, d[1] * inverse, d[2] * inverse, basis);
  T sum[3] = {T(0.5), T(0.5), T(0.5)};
  for (int k = 0; k < (degree + 1) * (degree + 1); ++k) {
    for (int i = 0; i < 3; ++i) sum[i] += basis[k] * sh[3 * k + i];
  }
  for (int i = 0; i < 3; ++i) color[i] = fmax(sum[i], T(0));
}

// Gradients in mean and sh from that in the colour; `color` is what shade gave.
template <typename T>
REFER_HD void shade_backward(int degree, const T mean[3], const T position[3], const T* sh,
                             const T color[3], const T grad_color[3], T grad_mean[3], T* grad_sh) {
  T d[3] = {mean[0] - position[0], mean[1] - position[1], mean[2] - position[2]};
  T basis[16], weights[16] = {}, along[3], g[3];
  const T inverse = 1 / fmax(sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2]), T(1e-12));
  for (int i = 0; i < 3; ++i) {
    d[i] *= inverse;
    g[i] = color[i] > 0 ? grad_color[i] : 0;
  }
  harmonics(degree, d[0], d[1], d[2], basis);
  for (int k = 0; k < (degree + 1) * (degree + 1); ++k) {
    weights[k] = g[0] * sh[3 * k] + g[1] * sh[3 * k + 1] + g[2] * sh[3 * k + 2];
    for (int i = 0; i < 3; ++i) grad_sh[3 * k + i] = basis[k] * g[i];
  }
  harmonics_backward(degree, d[0], d[1], d[2], weights, along);
  const T radial = along[0] * d[0] + along[1] * d[1] + along[2] * d[2];
  for (int i = 0; i < 3; ++i) grad_mean[i] = (along[i] - radial * d[i]) * inverse;
}

}  // namespace refer
