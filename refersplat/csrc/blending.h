// Alpha blending (Kerbl et al. 2023) of one Gaussian at one pixel, forward and backward. CPU and
// GPU code include it alike.
#pragma once

#include "ellipse.h"

#ifndef __CUDACC__
#include <algorithm>
#include <cstdint>
#include <cstring>
#endif

namespace refer {

constexpr double kMaxAlpha = 0.99;
constexpr double kMinTransmittance = 1e-4;

#ifdef __CUDACC__
template <typename T>
REFER_HD T at_most(T x, T limit) {
  return x > limit ? limit : x;
}
#else
// Limits by the order of the bits: one instruction for 16 floats, where a comparison that minds
// NaNs takes several. The bits of floats are ordered as the floats are from 0 on, and the other way
// round below.
inline int32_t bits_of(float x) {
  int32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}
inline float from_bits(int32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
// min(x, limit) for limit >= 0
inline float at_most(float x, float limit) {
  return from_bits(std::min(bits_of(x), bits_of(limit)));
}
inline double at_most(double x, double limit) { return x > limit ? limit : x; }
#endif

// alpha of opacity times falloff: at most 0.99, and 0 below 1/255.
template <typename T>
REFER_HD T limited_alpha(T full) {
  const T limited = at_most(full, T(kMaxAlpha));
  return limited >= T(kMinAlpha) ? limited : T(0);
}

// Whether a pixel still takes a Gaussian that leaves this transmittance behind it.
template <typename T>
REFER_HD bool stays_open(T transmittance) {
  return transmittance >= T(kMinTransmittance);
}

// The loss's gradient in the exponent of alpha. `open` is the transmittance in front of the
// Gaussian, `shade` the product of its value with the image's gradient. What lies behind it adds
// `behind` to the loss and is dimmed by 1 - alpha: d behind / d alpha = -behind / (1 - alpha), the
// last argument.
template <typename T>
REFER_HD T exponent_gradient(T alpha, T open, T shade, T behind_ratio) {
  const T grad_alpha = open * shade - behind_ratio;
  const bool slopes = (alpha > 0) & (alpha < T(kMaxAlpha));
  return slopes ? grad_alpha * alpha : T(0);
}

// Sums of g, g dx, g dy, g dx^2, g dx dy and g dy^2 over a Gaussian's pixels, where g is its
// exponent's gradient and (dx, dy) leads from the pixel to its centre.
constexpr int kMoments = 6;

// Gradients of a Gaussian's centre, conic and opacity.
template <typename T>
REFER_HD void gradients_of_moments(const Ellipse<T>& e, const T moments[kMoments], T grad_mean2d[2],
                                   T grad_conic[3], T& grad_opacity) {
  grad_mean2d[0] = -(e.xx * moments[1] + e.xy * moments[2]);
  grad_mean2d[1] = -(e.xy * moments[1] + e.yy * moments[2]);
  grad_conic[0] = T(-0.5) * moments[3];
  grad_conic[1] = -moments[4];
  grad_conic[2] = T(-0.5) * moments[5];
  grad_opacity = moments[0] / e.opacity;
}

}  // namespace refer
